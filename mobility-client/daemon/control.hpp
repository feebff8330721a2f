// SPDX-License-Identifier: GPL-2.0-or-later
// The control socket, by which migrate-ctl asks the daemon: a Unix socket on which a line of
// JSON is a request, and a line of JSON the answer.
//
//     {"command": "status"}
//     {"status": {...}}                                  as docs/json says
//     {"error": {"errno": 22, "message": "..."}}
//
// Who may open the file may ask everything (mode 0660: root and a group). Bounded: few
// clients at once, short requests, and little time for each.
//
// Single-threaded; the io_context has to have run dry before it goes.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <list>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "daemon/control_request.hpp"
#include "libmobility/log.hpp"
#include "tcpmigrate/result.hpp"

namespace mobility::client {

using tcpmigrate::Result;

class Control {
  public:
    /// The answer to a request; an Error becomes {"error": ...}.
    using Handler = std::function<Result<nlohmann::json>(const ControlRequest& request)>;
    using Socket = boost::asio::local::stream_protocol::socket;

    static constexpr std::size_t kMaxClients = 16;
    static constexpr std::size_t kMaxRequest = 4096;  ///< bytes

    Control(boost::asio::io_context& io, Handler handler, Log log);
    Control(const Control&) = delete;
    Control& operator=(const Control&) = delete;
    ~Control();

    /// Makes the socket; `group` is whose besides the owner's it is, if not empty. A
    /// socket to which nobody listens is replaced: EADDRINUSE if somebody does.
    Result<void> listen(const std::filesystem::path& path, const std::string& group);
    void stop();

    [[nodiscard]] std::uint64_t requests() const { return requests_; }
    [[nodiscard]] std::uint64_t refused() const { return refused_; }

  private:
    boost::asio::awaitable<void> accept_all();
    boost::asio::awaitable<void> serve(std::list<Socket>::iterator client);
    std::string answer(const std::string& line);

    boost::asio::io_context& io_;
    boost::asio::local::stream_protocol::acceptor acceptor_;
    Handler handler_;
    Log log_;
    std::filesystem::path path_;
    std::list<Socket> clients_;
    std::uint64_t requests_ = 0;
    std::uint64_t refused_ = 0;  ///< malformed, too long, or one client too many
};

}  // namespace mobility::client
