// SPDX-License-Identifier: GPL-2.0-or-later
// libtcpmigrate: list, move, abort and guard migratable TCP connections.
//
//     auto client = tcpmigrate::Client::open();
//     if (!client) { std::cerr << client.error().message << '\n'; return 1; }
//     for (const auto& c : *client->list()) std::cout << c.tuple() << '\n';
//
// Errors carry the kernel's errno: ENOENT (no such connection, or no such
// family when opening), EPERM (CAP_NET_ADMIN is needed), EOPNOTSUPP (the
// connection is not migratable), EADDRNOTAVAIL, EADDRINUSE, ENETUNREACH (the
// target), EBUSY (the key is in use).
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tcpmigrate/transport.hpp"

namespace tcpmigrate {

/// Commands over a Transport it owns. Move only, not thread safe.
class Client {
  public:
    /// Connects to the running kernel; see open_netlink_transport().
    static Result<Client> open();
    explicit Client(std::unique_ptr<Transport> transport) : transport_(std::move(transport)) {}

    /// All migratable connections of this network namespace that the caller
    /// may see. A dump that changes meanwhile is repeated a few times.
    Result<std::vector<Connection>> list();
    Result<Connection> get(const Name& name);
    /// Success means that the migration has started, not that it is done.
    Result<void> migrate(const MigrateRequest& request);
    Result<MigrateAllReply> migrate_all(const MigrateAllRequest& request);
    /// Ends the connection with ECONNRESET; the peer gets a signed RST.
    Result<void> abort(const Name& name);
    /// Returns the number of connections concerned.
    Result<std::uint32_t> key(const KeyRequest& request);
    Result<ExportReply> export_value(const Name& name);

  private:
    Result<Reply> transact(Result<NlMsg> request);
    std::unique_ptr<Transport> transport_;
};

/// Follows migrations to their end. Feed it every event after the command
/// (observe()) and, after lost events, a fresh dump (reconcile()).
class MigrationWatch {
  public:
    enum class Outcome { Pending, Committed, Failed };
    struct Entry {
        Connection before;  ///< as it was when the watch began
        Connection last;    ///< as last heard of
        Outcome outcome = Outcome::Pending;
    };

    /// Starts to follow connections, as they are before the command.
    explicit MigrationWatch(const std::vector<Connection>& before);

    /// Takes one event; events of other connections are ignored.
    void observe(const Connection& event);
    /// Takes the state of all connections. `idle_is_failure`: a connection at
    /// rest that has not moved has failed (false just after the command, when
    /// it may not have started yet).
    void reconcile(const std::vector<Connection>& now, bool idle_is_failure);

    [[nodiscard]] std::size_t pending() const;
    [[nodiscard]] bool any_failed() const;
    /// By cookie.
    [[nodiscard]] const std::map<std::uint64_t, Entry>& entries() const { return entries_; }

  private:
    std::map<std::uint64_t, Entry> entries_;
};

}  // namespace tcpmigrate
