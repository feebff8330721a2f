// SPDX-License-Identifier: GPL-2.0-or-later
// mobility-client, put together. Start reading here.
//
//     kernel --rtnetlink--> Watcher --views--+
//                                            v
//     kernel --tcp_migrate--> Table -----> Mover --migrate commands--> kernel
//                               |
//                               +--new connections--> Peers <--Sessions--> others' daemons
//                               |                       |
//                               |                      Book: pairs, by host
//                               |                       |
//                               +--moves----------> Resumer <--Servers--> mobility servers
//                                                       |
//                                                       +--migrate commands--> kernel
//     migrate-ctl <--Control--> Daemon
//
//   config.hpp    the configuration file
//   table.hpp     the migratable connections, as the kernel tells of them
//   mover.hpp     has them move when this host does
//   trust.hpp     whom this host believes to be who they are
//   prover.hpp    what a Session asks of the kernel
//   peers.hpp     the exchange before a move, on its sockets
//   vouchers.hpp  what this host's servers say of it to its peers
//   servers.hpp   channels to mobility servers
//   resumer.hpp   the exchange after a move
//   control.hpp   the socket by which migrate-ctl asks
//   status.hpp    what it is told
//
// On disk there are only the host's key and the pins. At a start, and whenever the kernel
// says that it could not tell everything, all is read anew from the kernel, and pairs are
// made anew. Connections go on without the daemon; only nobody moves them then.
#pragma once

#include <spdlog/sinks/ringbuffer_sink.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>

#include "daemon/config.hpp"
#include "daemon/control.hpp"
#include "daemon/log_tap.hpp"
#include "daemon/mover.hpp"
#include "daemon/peers.hpp"
#include "daemon/prover.hpp"
#include "daemon/resumer.hpp"
#include "daemon/servers.hpp"
#include "daemon/table.hpp"
#include "daemon/trust.hpp"
#include "daemon/vouchers.hpp"
#include "watch/watcher.hpp"

namespace mobility::client {

/// The latest lines of the log.
using Recent = std::shared_ptr<spdlog::sinks::ringbuffer_sink_st>;

class Daemon {
  public:
    /// Opens the sockets to the kernel and the control socket, and reads everything.
    /// The Identity outlives it.
    static Result<std::unique_ptr<Daemon>> open(boost::asio::io_context& io,
                                                const Identity& identity, const Config& config,
                                                const Log& log, Recent recent);
    Daemon(const Daemon&) = delete;
    Daemon& operator=(const Daemon&) = delete;
    ~Daemon();

    /// From now on connections move when the host does.
    void start();
    /// Ends everything; the io_context runs dry soon after.
    void stop();
    /// From now on by these settings. Where the sockets are is for the next start.
    /// If something of the files that it names is wrong, nothing changes.
    Result<void> reconfigure(const Config& config);

    /// What the control socket answers.
    Result<nlohmann::json> handle(const ControlRequest& request);

  private:
    /// What is made first, and can fail.
    struct Parts {
        Tls tls;
        Trust trust;
        std::unique_ptr<Table> table;
        std::unique_ptr<watch::Watcher> watcher;
    };
    Daemon(boost::asio::io_context& io, const Identity& identity, const Config& config,
           const Log& log, Recent recent, Parts parts);

    void on_event(const Connection& connection);
    void on_batch(bool reread);
    /// Forgets pairs that are not used any more, now and then.
    void tidy();
    /// From where which servers are to be spoken with has changed.
    void want_servers();
    /// As many as there may be: this host's own come first, then what there is already.
    [[nodiscard]] std::map<Servers::Key, Servers::Wanted> chosen_servers() const;
    /// As it is configured; null if it is not.
    [[nodiscard]] const ServerConfig* own_server(const Name& name) const;
    [[nodiscard]] Servers::Key as_configured(const Servers::Key& key) const;
    [[nodiscard]] Servers::Wanted how_to_use(const ServerPlace& place) const;
    void apply(const Config& config);
    /// Of those servers that are configured.
    void want_vouchers();
    /// Has the timer end when the Resumer has something to do.
    void arm();
    Resumer::Hands hands();
    nlohmann::json status() const;

    boost::asio::io_context& io_;
    const Identity& identity_;
    Config config_;
    Log log_;
    Recent recent_;
    Tls tls_;
    Trust trust_;
    std::unique_ptr<Table> table_;
    std::unique_ptr<watch::Watcher> watcher_;
    Mover mover_;
    Prover prover_;
    Book book_;
    Settings settings_;
    Vouchers vouchers_;
    Peers peers_;
    Servers servers_;
    Resumer resumer_;
    Control control_;
    std::shared_ptr<LogTap> tap_;  ///< what is logged, for those who follow
    boost::asio::steady_timer timer_;
    boost::asio::steady_timer tidying_;
    bool concerned_ = false;  ///< this batch was about a pair, or a server's channel
    std::chrono::steady_clock::time_point since_ = std::chrono::steady_clock::now();
};

}  // namespace mobility::client
