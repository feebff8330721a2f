// SPDX-License-Identifier: GPL-2.0-or-later
#include "libmobility/metrics.hpp"

#include <spdlog/fmt/fmt.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/http/write.hpp>
#include <utility>

#include "libmobility/within.hpp"

namespace mobility {

namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;

constexpr std::size_t kMostAtOnce = 8;
constexpr std::size_t kLongestRequest = 8192;
constexpr std::chrono::seconds kPatience(5);

http::response<http::string_body> answer(const http::request<http::empty_body>& request,
                                         const std::function<std::string()>& text) {
    http::response<http::string_body> response;
    response.keep_alive(false);
    if (request.method() != http::verb::get && request.method() != http::verb::head) {
        response.result(http::status::method_not_allowed);
    } else if (request.target() != "/metrics") {
        response.result(http::status::not_found);
        response.body() = "There is /metrics.\n";
    } else {
        response.set(http::field::content_type, "text/plain; version=0.0.4; charset=utf-8");
        response.body() = text();
    }
    response.prepare_payload();
    if (request.method() == http::verb::head) {
        response.body().clear();
    }
    return response;
}

}  // namespace

void MetricsText::gauge(const char* name, const char* help, std::uint64_t value) {
    head(name, "gauge", help);
    text_ += fmt::format("{} {}\n", name, value);
}

void MetricsText::counter(const char* name, const char* help, std::uint64_t value) {
    head(name, "counter", help);
    text_ += fmt::format("{} {}\n", name, value);
}

void MetricsText::head(const char* name, const char* kind, const char* help) {
    text_ += fmt::format("# HELP {0} {2}\n# TYPE {0} {1}\n", name, kind, help);
}

void MetricsText::labelled(const char* name, const char* label, const std::string& of,
                           std::uint64_t value) {
    text_ += fmt::format("{}{{{}=\"{}\"}} {}\n", name, label, of, value);
}

MetricsListener::MetricsListener(asio::io_context& io, std::function<std::string()> text)
    : text_(std::move(text)),
      listener_(
          io,
          [this, &io](asio::ip::tcp::socket socket) {
              if (busy_ < kMostAtOnce) {
                  busy_++;
                  asio::co_spawn(io, serve(std::move(socket)), asio::detached);
              }
          },
          [](const boost::system::error_code& /*whoever asks will ask again*/) {}) {}

asio::awaitable<void> MetricsListener::serve(asio::ip::tcp::socket socket) {
    beast::tcp_stream stream(std::move(socket));
    stream.expires_after(kPatience);
    beast::flat_buffer buffer(kLongestRequest);
    http::request<http::empty_body> request;
    const auto [bad, size] = co_await http::async_read(stream, buffer, request, kNoThrow);
    if (!bad) {
        const auto response = answer(request, text_);
        co_await http::async_write(stream, response, kNoThrow);
    }
    busy_--;
}

}  // namespace mobility
