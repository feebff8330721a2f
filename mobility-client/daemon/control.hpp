// SPDX-License-Identifier: GPL-2.0-or-later
// The control socket, by which migrate-ctl asks the daemon: a Unix socket on which a line of
// JSON is a request, and a line of JSON the answer.
//
//     {"command": "status"}
//     {"status": {...}}                                  as docs/json says
//     {"error": {"errno": 22, "message": "..."}}
//
// Who asks with "follow" for what there is more of later, the log, has it told, line by line,
// until he closes the socket.
//
// Who may open the file may ask everything (mode 0660: root and a group). Bounded: few
// clients at once, short requests, and little time for each; who follows and does not read is
// closed.
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
#include <set>
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
    static constexpr std::size_t kMaxRequest = 4096;    ///< bytes
    static constexpr std::size_t kMaxFollowers = 4;     ///< of the clients
    static constexpr std::size_t kMaxUntold = 1 << 20;  ///< bytes that one has not read

    Control(boost::asio::io_context& io, Handler handler, Log log);
    Control(const Control&) = delete;
    Control& operator=(const Control&) = delete;
    ~Control();

    /// Makes the socket; `group` is whose besides the owner's it is, if not empty. A
    /// socket to which nobody listens is replaced: EADDRINUSE if somebody does.
    Result<void> listen(const std::filesystem::path& path, const std::string& group);
    void stop();
    /// Tells all who follow.
    void tell(const nlohmann::json& news);

    [[nodiscard]] std::size_t followers() const { return followers_.size(); }
    [[nodiscard]] std::uint64_t requests() const { return requests_; }
    [[nodiscard]] std::uint64_t refused() const { return refused_; }

  private:
    struct Follower;

    boost::asio::awaitable<void> accept_all();
    boost::asio::awaitable<void> serve(std::list<Socket>::iterator client);
    /// Until the client has closed the socket, or does not read.
    boost::asio::awaitable<void> follow(Socket& client, std::string first);
    /// What to say to a request. `follows`: more is wanted.
    std::string answer(const std::string& line, bool& follows);

    boost::asio::io_context& io_;
    boost::asio::local::stream_protocol::acceptor acceptor_;
    Handler handler_;
    Log log_;
    std::filesystem::path path_;
    std::list<Socket> clients_;
    std::set<Follower*> followers_;
    std::uint64_t requests_ = 0;
    std::uint64_t refused_ = 0;  ///< malformed, too long, or one client too many
};

}  // namespace mobility::client
