// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/control.hpp"

#include <grp.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "libmobility/within.hpp"

namespace mobility::client {

namespace {

namespace asio = boost::asio;
using asio::local::stream_protocol;
using nlohmann::json;
using tcpmigrate::Error;
using tcpmigrate::make_error;

constexpr std::chrono::seconds kPatience(10);  ///< for a request, and for its answer
constexpr std::chrono::milliseconds kAfterError(100);

Error failure(int code, const std::filesystem::path& path, const std::string& what) {
    return make_error(code,
                      "control socket " + path.string() + ": " + what + ": " + std::strerror(code));
}

/// Nobody listens there, or nothing is there, afterwards.
Result<void> make_room(asio::io_context& io, const std::filesystem::path& path) {
    stream_protocol::socket probe(io);
    boost::system::error_code failed;
    probe.connect(stream_protocol::endpoint(path.string()), failed);
    if (!failed) {
        return failure(EADDRINUSE, path, "another mobility-client runs");
    }
    if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
        return failure(errno, path, "cannot remove the old one");
    }
    return {};
}

Result<void> give_to(const std::filesystem::path& path, const std::string& group) {
    const ::group* entry = ::getgrnam(group.c_str());  // NOLINT(concurrency-mt-unsafe)
    if (entry == nullptr) {
        return failure(ENOENT, path, "there is no group " + group);
    }
    if (::chown(path.c_str(), static_cast<uid_t>(-1), entry->gr_gid) != 0) {
        return failure(errno, path, "cannot give it to the group " + group);
    }
    return {};
}

asio::awaitable<Result<std::string>> read_line(Control::Socket& from, std::string& buffer) {
    const auto [failed, length] = co_await asio::async_read_until(
        from, asio::dynamic_buffer(buffer, Control::kMaxRequest), '\n', kNoThrow);
    if (failed) {
        co_return make_error(failed.value(), failed.message());
    }
    auto line = buffer.substr(0, length - 1);
    buffer.erase(0, length);
    co_return line;
}

asio::awaitable<Result<void>> send_text(Control::Socket& to, const std::string& text) {
    const auto [failed, length] = co_await asio::async_write(to, asio::buffer(text), kNoThrow);
    if (failed) {
        co_return make_error(failed.value(), failed.message());
    }
    co_return Result<void>{};
}

json error_json(const Error& error) {
    return {{"error", {{"errno", error.code.value()}, {"message", error.message}}}};
}

std::string text_of(const json& value) {
    return value.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
}

}  // namespace

struct Control::Follower {
    explicit Follower(asio::io_context& io) : news(io, asio::steady_timer::time_point::max()) {}

    std::string untold;
    asio::steady_timer news;  ///< cancelled when there is some
};

Control::Control(asio::io_context& io, Handler handler, Log log)
    : io_(io), acceptor_(io), handler_(std::move(handler)), log_(std::move(log)) {}

Control::~Control() {
    if (!path_.empty()) {
        ::unlink(path_.c_str());
    }
}

Result<void> Control::listen(const std::filesystem::path& path, const std::string& group) {
    if (path.string().size() >= sizeof(sockaddr_un::sun_path)) {
        return failure(ENAMETOOLONG, path, "cannot be made");
    }
    if (const auto room = make_room(io_, path); !room) {
        return room.error();
    }
    boost::system::error_code failed;
    acceptor_.open(stream_protocol(), failed);
    if (!failed) {
        // Nobody may open it between bind() and chmod().
        const auto mask = ::umask(0117);
        acceptor_.bind(stream_protocol::endpoint(path.string()), failed);
        ::umask(mask);
    }
    if (failed) {
        return failure(failed.value(), path, "cannot be made");
    }
    path_ = path;
    if (!group.empty()) {
        if (const auto given = give_to(path, group); !given) {
            return given.error();
        }
    }
    acceptor_.listen(kMaxClients, failed);
    if (failed) {
        return failure(failed.value(), path, "cannot listen");
    }
    asio::co_spawn(io_, accept_all(), asio::detached);
    return {};
}

void Control::stop() {
    boost::system::error_code ignored;
    acceptor_.close(ignored);
    for (auto& client : clients_) {
        client.close(ignored);
    }
    for (auto* follower : followers_) {
        follower->news.cancel();
    }
}

void Control::tell(const json& news) {
    if (followers_.empty()) {
        return;
    }
    const auto text = text_of(news);
    for (auto* follower : followers_) {
        follower->untold += text;
        follower->news.cancel();
    }
}

asio::awaitable<void> Control::accept_all() {
    while (acceptor_.is_open()) {
        auto [failed, socket] = co_await acceptor_.async_accept(kNoThrow);
        if (!acceptor_.is_open()) {
            co_return;
        }
        if (failed) {
            log_->warn("event=control-accept-failed error=\"{}\"", failed.message());
            asio::steady_timer pause(io_, kAfterError);
            co_await pause.async_wait(kNoThrow);
        } else if (clients_.size() >= kMaxClients) {
            refused_++;
        } else {
            clients_.push_back(std::move(socket));
            asio::co_spawn(io_, serve(std::prev(clients_.end())), asio::detached);
        }
    }
}

asio::awaitable<void> Control::serve(std::list<Socket>::iterator client) {
    std::string buffer;
    for (;;) {
        const auto line = co_await within(kPatience, read_line(*client, buffer));
        if (!line) {
            refused_ += buffer.empty() ? 0 : 1;
            break;
        }
        bool follows = false;
        const auto reply = answer(*line, follows);
        if (follows) {
            co_await follow(*client, reply);
            break;
        }
        const auto sent = co_await within(kPatience, send_text(*client, reply));
        if (!sent) {
            break;
        }
    }
    clients_.erase(client);
}

asio::awaitable<void> Control::follow(Socket& client, std::string first) {
    using asio::experimental::awaitable_operators::operator||;
    Follower follower(io_);
    follower.untold = std::move(first);
    followers_.insert(&follower);
    while (client.is_open() && follower.untold.size() <= kMaxUntold) {
        if (!follower.untold.empty()) {
            const auto text = std::exchange(follower.untold, {});
            const auto sent = co_await within(kPatience, send_text(client, text));
            if (!sent) {
                break;
            }
            continue;
        }
        // Whatever it says now, it has said that it has had enough.
        const auto first_of = co_await (client.async_wait(Socket::wait_read, kNoThrow) ||
                                        follower.news.async_wait(kNoThrow));
        if (first_of.index() == 0) {
            break;
        }
    }
    followers_.erase(&follower);
}

std::string Control::answer(const std::string& line, bool& follows) {
    requests_++;
    const auto request = parse_request(line);
    if (!request) {
        refused_++;
        return text_of(error_json(request.error()));
    }
    auto answered = handler_(*request);
    if (answered && request->follow && followers_.size() >= kMaxFollowers) {
        refused_++;
        answered = make_error(EBUSY, "so many follow already");
    }
    follows = request->follow && answered;
    return text_of(answered ? *answered : error_json(answered.error()));
}

}  // namespace mobility::client
