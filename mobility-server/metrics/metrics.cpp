// SPDX-License-Identifier: GPL-2.0-or-later
#include "metrics.hpp"

#include <spdlog/fmt/fmt.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/http/write.hpp>

#include "libmobility/within.hpp"

namespace mobility::server {

namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;

constexpr std::size_t kMostAtOnce = 8;
constexpr std::size_t kLongestRequest = 8192;
constexpr std::chrono::seconds kPatience(5);

class Text {
  public:
    void gauge(const char* name, const char* help, std::uint64_t value) {
        add(name, "gauge", help, value);
    }
    void counter(const char* name, const char* help, std::uint64_t value) {
        add(name, "counter", help, value);
    }
    void head(const char* name, const char* kind, const char* help) {
        text_ += fmt::format("# HELP {0} {2}\n# TYPE {0} {1}\n", name, kind, help);
    }
    void labelled(const char* name, const char* label, const char* of, std::uint64_t value) {
        text_ += fmt::format("{}{{{}=\"{}\"}} {}\n", name, label, of, value);
    }
    [[nodiscard]] std::string take() { return std::move(text_); }

  private:
    void add(const char* name, const char* kind, const char* help, std::uint64_t value) {
        head(name, kind, help);
        text_ += fmt::format("{} {}\n", name, value);
    }

    std::string text_;
};

void add_service(Text& text, const Service& service) {
    const auto& c = service.counters();
    text.gauge("mobility_server_channels", "Channels of admitted hosts.", service.channels());
    text.gauge("mobility_server_strangers", "Connected and not admitted yet.", service.strangers());
    text.counter("mobility_server_accepted_total", "Connections accepted.", c.accepted);
    text.counter("mobility_server_accept_errors_total", "Connections that could not be accepted.",
                 c.accept_errors);
    text.counter("mobility_server_joined_total", "Channels of hosts that were admitted.", c.joined);
    text.counter("mobility_server_vouchers_total", "Vouchers given to hosts.", c.vouched);
    text.counter("mobility_server_no_vouchers_total",
                 "Hosts that wanted a voucher, and that the server does not vouch for.",
                 c.not_vouched);
    text.counter("mobility_server_crowded_total", "Closed at once: too many of one address.",
                 c.crowded);
    text.counter("mobility_server_pushed_out_total", "Strangers ended by newer ones.",
                 c.pushed_out);
    text.counter("mobility_server_introduction_failed_total", "TLS or Hello bad, or too late.",
                 c.introduction_failed);
    text.counter("mobility_server_replaced_total", "Channels ended by newer ones of the same host.",
                 c.replaced);
    text.counter("mobility_server_slow_total", "Channels ended for not taking what was sent.",
                 c.slow);
    text.counter("mobility_server_throttled_total", "Waits of hosts that say too much.",
                 c.throttled);
    text.counter("mobility_server_messages_received_total", "Messages of hosts.", c.received);
    text.counter("mobility_server_messages_sent_total", "Messages to hosts.", c.sent);
    static constexpr std::array kWhy = {"no-reason", "version",   "not-admitted", "too-much",
                                        "busy",      "malformed", "not-yours"};
    static_assert(kWhy.size() == std::tuple_size_v<decltype(c.refused)>);
    const char* refused = "mobility_server_refused_total";
    text.head(refused, "counter", "Refusals of channels and of messages.");
    for (std::size_t why = 1; why < kWhy.size(); why++) {
        text.labelled(refused, "why", kWhy.at(why), c.refused.at(why));
    }
}

void add_exchange(Text& text, const Exchange& exchange) {
    const auto& c = exchange.counters();
    text.gauge("mobility_server_pairs", "Pairs of hosts that are remembered.", exchange.pairs());
    text.counter("mobility_server_reports_total", "Reports taken.", c.reports);
    text.counter("mobility_server_judgements_total", "Pairs judged.", c.judgements);
    text.counter("mobility_server_notices_total", "Hosts told where their peer is.", c.notices);
    text.counter("mobility_server_resumed_total", "Pairs that have resumed when told.", c.resumed);
    text.counter("mobility_server_verdicts_total", "Pairs told that nothing more can be done.",
                 c.verdicts);
}

http::response<http::string_body> answer(const http::request<http::empty_body>& request,
                                         const Service& service) {
    http::response<http::string_body> response;
    response.keep_alive(false);
    if (request.method() != http::verb::get && request.method() != http::verb::head) {
        response.result(http::status::method_not_allowed);
    } else if (request.target() != "/metrics") {
        response.result(http::status::not_found);
        response.body() = "There is /metrics.\n";
    } else {
        response.set(http::field::content_type, "text/plain; version=0.0.4; charset=utf-8");
        response.body() = metrics_text(service);
    }
    response.prepare_payload();
    if (request.method() == http::verb::head) {
        response.body().clear();
    }
    return response;
}

}  // namespace

std::string metrics_text(const Service& service) {
    Text text;
    add_service(text, service);
    add_exchange(text, service.exchange());
    return text.take();
}

MetricsListener::MetricsListener(asio::io_context& io, const Service& service)
    : service_(service),
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
        const auto response = answer(request, service_);
        co_await http::async_write(stream, response, kNoThrow);
    }
    busy_--;
}

}  // namespace mobility::server
