// SPDX-License-Identifier: GPL-2.0-or-later
// Commands, and the watch that follows migrations to their end.

#include "tcpmigrate/client.hpp"

#include <algorithm>
#include <cerrno>

namespace tcpmigrate {

namespace {

/// A dump that changed under the reader is repeated; a host where it changes
/// every time gets the last one, which may miss or repeat a connection.
constexpr int kDumpAttempts = 4;

Result<std::vector<Connection>> decode_all(const Reply& reply) {
    std::map<std::uint64_t, Connection> by_cookie;
    for (const auto& message : reply.messages) {
        auto conn = decode_connection(message);
        if (!conn) {
            return conn.error();
        }
        by_cookie.insert_or_assign(conn->cookie, *conn);
    }
    std::vector<Connection> all;
    all.reserve(by_cookie.size());
    for (const auto& [cookie, conn] : by_cookie) {
        all.push_back(conn);
    }
    return all;
}

Error no_answer(const char* what) {
    return make_error(EBADMSG,
                      std::string("the kernel acknowledged ") + what + " but sent no answer");
}

/// Reasons that end a migration without success, whatever the state.
bool ends_in_failure(Reason reason) {
    switch (reason) {
        case Reason::Timeout:
        case Reason::RstAuth:
        case Reason::Retries:
        case Reason::PathAlive:
        case Reason::TrialFailed:
        case Reason::TupleInUse:
        case Reason::NoRoute:
        case Reason::Closed:
        case Reason::Aborted:
            return true;
        default:
            return false;
    }
}

bool has_moved(const Connection& before, const Connection& now) {
    return now.reqno != before.reqno || now.migrations != before.migrations;
}

}  // namespace

Result<Client> Client::open() {
    auto transport = open_netlink_transport();
    if (!transport) {
        return transport.error();
    }
    return Client(std::move(*transport));
}

Result<Reply> Client::transact(Result<NlMsg> request) {
    if (!request) {
        return request.error();
    }
    return transport_->transact(std::move(*request));
}

Result<std::vector<Connection>> Client::list() {
    for (int attempt = 1;; attempt++) {
        auto reply = transact(encode_dump());
        if (!reply) {
            return reply.error();
        }
        if (!reply->interrupted || attempt == kDumpAttempts) {
            return decode_all(*reply);
        }
    }
}

Result<Connection> Client::get(const Name& name) {
    auto reply = transact(encode_get(name));
    if (!reply) {
        return reply.error();
    }
    return reply->messages.empty() ? no_answer("get") : decode_connection(reply->messages[0]);
}

Result<void> Client::migrate(const MigrateRequest& request) {
    auto reply = transact(encode_migrate(request));
    return reply ? Result<void>() : reply.error();
}

Result<MigrateAllReply> Client::migrate_all(const MigrateAllRequest& request) {
    auto reply = transact(encode_migrate_all(request));
    if (!reply) {
        return reply.error();
    }
    return reply->messages.empty() ? no_answer("migrate-all")
                                   : decode_migrate_all(reply->messages[0]);
}

Result<void> Client::abort(const Name& name) {
    auto reply = transact(encode_abort(name));
    return reply ? Result<void>() : reply.error();
}

Result<std::uint32_t> Client::key(const KeyRequest& request) {
    auto reply = transact(encode_key(request));
    if (!reply) {
        return reply.error();
    }
    return reply->messages.empty() ? no_answer("key") : decode_key_count(reply->messages[0]);
}

Result<ExportReply> Client::export_value(const Name& name) {
    auto reply = transact(encode_export(name));
    if (!reply) {
        return reply.error();
    }
    return reply->messages.empty() ? no_answer("export") : decode_export(reply->messages[0]);
}

MigrationWatch::MigrationWatch(const std::vector<Connection>& before) {
    for (const auto& conn : before) {
        entries_.emplace(conn.cookie, Entry{conn, conn, Outcome::Pending});
    }
}

void MigrationWatch::observe(const Connection& event) {
    const auto found = entries_.find(event.cookie);
    if (found == entries_.end() || found->second.outcome != Outcome::Pending) {
        return;
    }
    auto& entry = found->second;
    entry.last = event;
    if (event.reason == Reason::Committed) {
        entry.outcome = Outcome::Committed;
    } else if (ends_in_failure(event.reason) || event.state == State::MigWait) {
        entry.outcome = Outcome::Failed;
    }
}

void MigrationWatch::reconcile(const std::vector<Connection>& now, bool idle_is_failure) {
    std::map<std::uint64_t, const Connection*> by_cookie;
    for (const auto& conn : now) {
        by_cookie.emplace(conn.cookie, &conn);
    }
    for (auto& [cookie, entry] : entries_) {
        if (entry.outcome != Outcome::Pending) {
            continue;
        }
        const auto found = by_cookie.find(cookie);
        if (found == by_cookie.end()) {
            entry.last.state = State::None;
            entry.last.reason = Reason::Closed;
            entry.outcome = Outcome::Failed;
            continue;
        }
        entry.last = *found->second;
        if (has_moved(entry.before, entry.last)) {
            entry.outcome = Outcome::Committed;
        } else if (idle_is_failure && entry.last.state != State::MigSent &&
                   entry.last.state != State::MigConfirm) {
            entry.outcome = Outcome::Failed;
        }
    }
}

std::size_t MigrationWatch::pending() const {
    return static_cast<std::size_t>(
        std::count_if(entries_.begin(), entries_.end(),
                      [](const auto& item) { return item.second.outcome == Outcome::Pending; }));
}

bool MigrationWatch::any_failed() const {
    return std::any_of(entries_.begin(), entries_.end(),
                       [](const auto& item) { return item.second.outcome == Outcome::Failed; });
}

}  // namespace tcpmigrate
