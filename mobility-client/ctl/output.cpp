// SPDX-License-Identifier: GPL-2.0-or-later
// Text and JSON.

#include "output.hpp"

#include <net/if.h>
#include <pwd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <iomanip>
#include <nlohmann/json.hpp>
#include <ostream>

namespace ctl {

using nlohmann::json;
using tcpmigrate::Connection;
using tcpmigrate::Error;

namespace {

json endpoint_json(const tcpmigrate::Endpoint& endpoint) {
    return {{"address", endpoint.address.to_string()}, {"port", endpoint.port}};
}

json target_json(const tcpmigrate::Target& target) {
    json value = json::object();
    if (target.address) {
        value["address"] = target.address->to_string();
    }
    if (target.port) {
        value["port"] = *target.port;
    }
    return value;
}

std::string hex(std::uint32_t value) {
    std::array<char, 12> text{};
    static_cast<void>(std::snprintf(text.data(), text.size(), "%08x", value));
    return text.data();
}

std::string interface_name(std::uint32_t index) {
    std::array<char, IF_NAMESIZE> name{};
    return if_indextoname(index, name.data()) != nullptr ? name.data()
                                                         : "if" + std::to_string(index);
}

std::string user_name(std::uint32_t uid) {
    std::array<char, 4096> space{};
    passwd entry{};
    passwd* found = nullptr;
    getpwuid_r(uid, &entry, space.data(), space.size(), &found);
    return found != nullptr ? found->pw_name : std::to_string(uid);
}

/// IPv4: an address. IPv6: four bytes of a keyed hash, which only compare.
std::string inner_text(const Connection& conn) {
    std::uint32_t value = 0;
    for (const auto byte : conn.peer_inner->address) {
        value = value << 8U | std::to_integer<std::uint32_t>(byte);
    }
    if (conn.remote.address.is_v6()) {
        return hex(value);
    }
    return tcpmigrate::Address::from_bytes(conn.peer_inner->address)->to_string();
}

std::vector<int> accepted_keys(const Connection& conn) {
    std::vector<int> keys;
    for (int id = 0; id < 4; id++) {
        if ((conn.key_mask >> id & 1) != 0) {
            keys.push_back(id);
        }
    }
    return keys;
}

void add_optional_json(json& value, const Connection& conn) {
    if (conn.peer_inner) {
        value["peer_inner"] = {{conn.remote.address.is_v6() ? "hash" : "address", inner_text(conn)},
                               {"port", conn.peer_inner->port}};
    }
    if (conn.token_local) {
        value["token_local"] = hex(*conn.token_local);
    }
    if (conn.token_remote) {
        value["token_remote"] = hex(*conn.token_remote);
    }
    if (!conn.new_local.empty()) {
        value["new_local"] = target_json(conn.new_local);
    }
    if (!conn.new_remote.empty()) {
        value["new_remote"] = target_json(conn.new_remote);
    }
    if (conn.if_index != 0) {
        value["interface"] = {{"index", conn.if_index}, {"name", interface_name(conn.if_index)}};
    }
    if (conn.uid) {
        value["uid"] = *conn.uid;
    }
    if (conn.inode) {
        value["inode"] = *conn.inode;
    }
    if (conn.left_ms) {
        value["left_ms"] = *conn.left_ms;
    }
    if (conn.error != 0) {
        value["error"] = conn.error;
    }
}

std::string target_text(const tcpmigrate::Target& target) {
    if (target.address && target.port) {
        return tcpmigrate::Endpoint{*target.address, *target.port}.to_string();
    }
    return target.address ? target.address->to_string()
                          : "port " + std::to_string(target.port.value_or(0));
}

void line(std::ostream& out, const char* name, const std::string& value) {
    if (!value.empty()) {
        out << "  " << std::left << std::setw(14) << name << value << '\n';
    }
}

std::string state_text(const Connection& conn) {
    std::string text = to_string(conn.state) + " for " + duration(conn.age_ms);
    if (conn.reason != tcpmigrate::Reason::None) {
        text += ": " + std::string(tcpmigrate::explain(conn.reason));
    }
    if (conn.left_ms) {
        text += "; ends in " + duration(*conn.left_ms);
    }
    return text;
}

std::string keys_text(const Connection& conn) {
    if (conn.key_id == 0 && (conn.key_mask & ~1) == 0) {
        return "only the in-band key of the handshake";
    }
    std::string text = "asks with " + std::to_string(conn.key_id) + ", accepts";
    for (const int id : accepted_keys(conn)) {
        text += " " + std::to_string(id);
    }
    return text + " (0 is the in-band key)";
}

int exit_code(const Error& error) {
    if (error.is(ENOENT)) {
        return kNotFound;
    }
    return error.is(EPERM) || error.is(EACCES) ? kNotPermitted : kFailed;
}

int show_error(const System& system, const Error& error, const std::string& message,
               const std::string& advice, int code) {
    if (system.json) {
        json value{{"errno", error.code.value()}, {"message", message}, {"exit_code", code}};
        if (!advice.empty()) {
            value["remedy"] = advice;
        }
        print_json(system, {{"error", value}});
    } else {
        system.err << "migrate-ctl: " << message << (advice.empty() ? "" : "; ") << advice << '\n';
    }
    return code;
}

}  // namespace

json to_json(const Connection& conn) {
    json value{
        {"cookie", conn.cookie},
        {"local", endpoint_json(conn.local)},
        {"remote", endpoint_json(conn.remote)},
        {"state", to_string(conn.state)},
        {"tcp_state", tcpmigrate::tcp_state_to_string(conn.tcp_state)},
        {"reason", to_string(conn.reason)},
        {"role", conn.opener ? "opener" : "acceptor"},
        {"reqno", conn.reqno},
        {"migrations", conn.migrations},
        {"peer_nat", conn.peer_nat},
        {"age_ms", conn.age_ms},
        {"key_id", conn.key_id},
        {"keys_accepted", accepted_keys(conn)},
    };
    add_optional_json(value, conn);
    return value;
}

void print_table(std::ostream& out, const std::vector<std::vector<std::string>>& rows) {
    std::vector<std::size_t> widths;
    for (const auto& row : rows) {
        widths.resize(std::max(widths.size(), row.size()));
        for (std::size_t i = 0; i < row.size(); i++) {
            widths[i] = std::max(widths[i], row[i].size());
        }
    }
    for (const auto& row : rows) {
        for (std::size_t i = 0; i < row.size(); i++) {
            const bool last = i + 1 == row.size();
            out << std::left << std::setw(last ? 0 : static_cast<int>(widths[i]) + 2) << row[i];
        }
        out << '\n';
    }
}

std::string duration(std::uint64_t milliseconds) {
    const auto seconds = milliseconds / 1000;
    if (seconds < 60) {
        std::array<char, 32> text{};
        static_cast<void>(std::snprintf(text.data(), text.size(), "%.1f s",
                                        static_cast<double>(milliseconds) / 1000.0));
        return text.data();
    }
    if (seconds < 3600) {
        return std::to_string(seconds / 60) + " min " + std::to_string(seconds % 60) + " s";
    }
    return std::to_string(seconds / 3600) + " h " + std::to_string(seconds / 60 % 60) + " min";
}

void print_details(std::ostream& out, const Connection& conn) {
    out << conn.tuple() << '\n';
    line(out, "cookie", std::to_string(conn.cookie));
    line(out, "state", state_text(conn));
    line(out, "TCP", tcpmigrate::tcp_state_to_string(conn.tcp_state));
    line(out, "role", conn.opener ? "opened the connection" : "accepted the connection");
    line(out, "moves",
         std::to_string(conn.migrations) + ", last ReqNo " + std::to_string(conn.reqno));
    line(out, "moving to", conn.new_local.empty() ? "" : target_text(conn.new_local) + " (local)");
    line(out, "", conn.new_remote.empty() ? "" : target_text(conn.new_remote) + " (remote)");
    line(out, "peer", conn.peer_nat ? "behind a NAPT" : "not behind a NAPT");
    if (conn.peer_inner) {
        line(out, "peer's own",
             inner_text(conn) + " port " + std::to_string(conn.peer_inner->port) +
                 (conn.remote.address.is_v6() ? " (hash of its address)" : ""));
    }
    line(out, "token", conn.token_local ? hex(*conn.token_local) : "");
    line(out, "peer's token", conn.token_remote ? hex(*conn.token_remote) : "");
    line(out, "keys", keys_text(conn));
    line(out, "interface", conn.if_index != 0 ? interface_name(conn.if_index) : "");
    line(out, "user", conn.uid ? user_name(*conn.uid) : "");
    line(out, "inode", conn.inode ? std::to_string(*conn.inode) : "");
}

std::string remedy(int errno_value) {
    switch (errno_value) {
        case ENOENT:
            return "`migrate-ctl list` shows the migratable connections";
        case EPERM:
        case EACCES:
            return "it needs CAP_NET_ADMIN: run it as root";
        case EOPNOTSUPP:
            return "the connection is not migratable; `migrate-ctl doctor` tells what stands in "
                   "the way";
        case EADDRNOTAVAIL:
            return "the new local address must be an address of this host (`ip address`)";
        case EADDRINUSE:
            return "another socket has these addresses and ports; give another address of this "
                   "host with --to-local";
        case ENETUNREACH:
        case EHOSTUNREACH:
            return "there must be a route from the new local address (`ip route get REMOTE from "
                   "LOCAL`)";
        case EBUSY:
            return "the key is in use: add the new one with another --id and promote that, or wait "
                   "for the end of the migration under way (`migrate-ctl monitor`)";
        case EALREADY:
        case EINPROGRESS:
            return "a migration is under way; `migrate-ctl monitor` shows its end";
        case ENODEV:
            return "`ip link` shows the interfaces";
        default:
            return {};
    }
}

int report(const System& system, const Error& error, const std::string& subject) {
    std::string message = error.message;
    if (!subject.empty()) {
        message = error.is(ENOENT) ? "no migratable connection " + subject
                                   : subject + ": " + error.message;
    }
    return show_error(system, error, message, remedy(error.code.value()), exit_code(error));
}

int report_open(const System& system, const Error& error) {
    if (!error.is(ENOENT)) {
        return report(system, error);
    }
    return show_error(system, error, error.message, "`migrate-ctl doctor` tells more",
                      kUnsupported);
}

int report_daemon(const System& system, const Error& error, bool answered) {
    if (answered) {
        return show_error(system, error, error.message, "", kFailed);
    }
    const bool denied = error.is(EACCES) || error.is(EPERM);
    return show_error(system, error, "mobility-client: " + error.message,
                      denied ? "run it as root, or as a member of the daemon's group"
                             : "`systemctl start mobility-client`; its log tells more",
                      denied ? kNotPermitted : kNoDaemon);
}

void print_json(const System& system, const json& value) {
    system.out << value.dump() << std::endl;  // flushed: a reader may wait for it
}

}  // namespace ctl
