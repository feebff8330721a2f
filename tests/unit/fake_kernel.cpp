// SPDX-License-Identifier: GPL-2.0-or-later
#include "fake_kernel.hpp"

#include <arpa/inet.h>

#include <array>

namespace fake {

namespace {

struct MsgDeleter {
    void operator()(nl_msg* msg) const { nlmsg_free(msg); }
};

Bytes bytes_of(const nlmsghdr* header) {
    const auto* first = reinterpret_cast<const std::byte*>(header);
    return {first, first + header->nlmsg_len};
}

void put_address(nl_msg* msg, int type, const Address& address) {
    nla_put(msg, type, static_cast<int>(address.bytes().size()), address.bytes().data());
}

void put_port(nl_msg* msg, int type, std::uint16_t port) {
    nla_put_u16(msg, type, htons(port));
}

void put_target(nl_msg* msg, int address_type, int port_type, const Target& target) {
    if (target.address) {
        put_address(msg, address_type, *target.address);
    }
    if (target.port) {
        put_port(msg, port_type, *target.port);
    }
}

void put_optional(nl_msg* msg, const Connection& c) {
    if (c.peer_inner) {
        nla_put(msg, TCP_MIGRATE_A_CONN_PEER_INNER_ADDR, 4, c.peer_inner->address.data());
        put_port(msg, TCP_MIGRATE_A_CONN_PEER_INNER_PORT, c.peer_inner->port);
    }
    if (c.token_local) {
        nla_put_u32(msg, TCP_MIGRATE_A_CONN_TOKEN_LOCAL, *c.token_local);
    }
    if (c.token_remote) {
        nla_put_u32(msg, TCP_MIGRATE_A_CONN_TOKEN_REMOTE, *c.token_remote);
    }
    put_target(msg, TCP_MIGRATE_A_CONN_NEW_LOCAL_ADDR, TCP_MIGRATE_A_CONN_NEW_LOCAL_PORT,
               c.new_local);
    put_target(msg, TCP_MIGRATE_A_CONN_NEW_REMOTE_ADDR, TCP_MIGRATE_A_CONN_NEW_REMOTE_PORT,
               c.new_remote);
    if (c.if_index != 0) {
        nla_put_u32(msg, TCP_MIGRATE_A_CONN_IF_INDEX, c.if_index);
    }
    if (c.uid) {
        nla_put_u32(msg, TCP_MIGRATE_A_CONN_UID, *c.uid);
    }
    if (c.inode) {
        nla_put_u64(msg, TCP_MIGRATE_A_CONN_INODE, *c.inode);
    }
    if (c.left_ms) {
        nla_put_u32(msg, TCP_MIGRATE_A_CONN_LEFT_MS, *c.left_ms);
    }
    if (c.error != 0) {
        nla_put_u32(msg, TCP_MIGRATE_A_CONN_ERROR, c.error);
    }
}

void put_connection(nl_msg* msg, const Connection& c) {
    nla_put_u64(msg, TCP_MIGRATE_A_CONN_COOKIE, c.cookie);
    nla_put_u16(msg, TCP_MIGRATE_A_CONN_FAMILY, static_cast<uint16_t>(c.local.address.family()));
    put_address(msg, TCP_MIGRATE_A_CONN_LOCAL_ADDR, c.local.address);
    put_port(msg, TCP_MIGRATE_A_CONN_LOCAL_PORT, c.local.port);
    put_address(msg, TCP_MIGRATE_A_CONN_REMOTE_ADDR, c.remote.address);
    put_port(msg, TCP_MIGRATE_A_CONN_REMOTE_PORT, c.remote.port);
    nla_put_u8(msg, TCP_MIGRATE_A_CONN_STATE, static_cast<std::uint8_t>(c.state));
    nla_put_u8(msg, TCP_MIGRATE_A_CONN_TCP_STATE, c.tcp_state);
    nla_put_u8(msg, TCP_MIGRATE_A_CONN_REASON, static_cast<std::uint8_t>(c.reason));
    nla_put_u8(msg, TCP_MIGRATE_A_CONN_ROLE, c.opener ? 1 : 0);
    nla_put_u32(msg, TCP_MIGRATE_A_CONN_REQNO, c.reqno);
    nla_put_u32(msg, TCP_MIGRATE_A_CONN_MIGRATIONS, c.migrations);
    nla_put_u8(msg, TCP_MIGRATE_A_CONN_PEER_NAT, c.peer_nat ? 1 : 0);
    nla_put_u32(msg, TCP_MIGRATE_A_CONN_AGE_MS, c.age_ms);
    nla_put_u8(msg, TCP_MIGRATE_A_CONN_KEY_ID, c.key_id);
    nla_put_u8(msg, TCP_MIGRATE_A_CONN_KEY_MASK, c.key_mask);
    put_optional(msg, c);
}

template <typename T>
T value_of(const Request& request, int type) {
    T value{};
    const auto found = request.attributes.find(type);
    if (found != request.attributes.end() && found->second.size() == sizeof(T)) {
        std::memcpy(&value, found->second.data(), sizeof(T));
    }
    return value;
}

class FakeTransport final : public Transport {
  public:
    explicit FakeTransport(Kernel& kernel) : kernel_(kernel) {}
    Result<Reply> transact(NlMsg request) override { return kernel_.handle(request); }

  private:
    Kernel& kernel_;
};

class FakeEvents final : public EventSource {
  public:
    explicit FakeEvents(Kernel& kernel) : kernel_(kernel) {}
    [[nodiscard]] int fd() const override { return -1; }
    Result<std::vector<Connection>> receive(std::chrono::milliseconds timeout) override {
        return kernel_.next_events(timeout);
    }

  private:
    Kernel& kernel_;
};

void append(Bytes& to, const Bytes& more) {
    to.insert(to.end(), more.begin(), more.end());
}

}  // namespace

Bytes make_message(std::uint8_t command, const std::function<void(nl_msg*)>& fill,
                   std::uint16_t type, std::uint32_t seq, int flags) {
    const std::unique_ptr<nl_msg, MsgDeleter> msg(nlmsg_alloc());
    genlmsg_put(msg.get(), 0, seq, type, 0, flags, command, 1);
    fill(msg.get());
    return bytes_of(nlmsg_hdr(msg.get()));
}

Bytes make_connection_message(std::uint8_t command, const Connection& conn) {
    return make_message(command, [&](nl_msg* msg) { put_connection(msg, conn); });
}

Bytes make_error_message(int error, const std::string& text, std::uint32_t seq) {
    const std::unique_ptr<nl_msg, MsgDeleter> msg(nlmsg_alloc());
    const int flags = text.empty() ? 0 : NLM_F_CAPPED | NLM_F_ACK_TLVS;
    nlmsg_put(msg.get(), 0, seq, NLMSG_ERROR, 0, flags);
    nlmsgerr body{};
    body.error = -error;
    body.msg.nlmsg_len = sizeof(nlmsghdr) + 40;  // the request was longer than what is echoed
    nlmsg_append(msg.get(), &body, sizeof(body), NLMSG_ALIGNTO);
    if (!text.empty()) {
        nla_put_u32(msg.get(), NLMSGERR_ATTR_OFFS, 20);
        nla_put_string(msg.get(), NLMSGERR_ATTR_MSG, text.c_str());
    }
    return bytes_of(nlmsg_hdr(msg.get()));
}

Bytes make_done_message(int flags, std::uint32_t seq) {
    const std::unique_ptr<nl_msg, MsgDeleter> msg(nlmsg_alloc());
    nlmsg_put(msg.get(), 0, seq, NLMSG_DONE, 0, flags | NLM_F_MULTI);
    int none = 0;
    nlmsg_append(msg.get(), &none, sizeof(none), NLMSG_ALIGNTO);
    return bytes_of(nlmsg_hdr(msg.get()));
}

Connection sample(std::uint64_t cookie) {
    Connection conn;
    conn.cookie = cookie;
    conn.local = *Endpoint::parse("192.0.2.1:5000");
    conn.local.port = static_cast<std::uint16_t>(4983 + cookie);
    conn.remote = *Endpoint::parse("198.51.100.2:80");
    conn.state = State::Idle;
    conn.reason = Reason::Agreed;
    conn.tcp_state = 1;
    conn.opener = true;
    conn.age_ms = 1500;
    conn.key_mask = 1;
    return conn;
}

std::uint32_t Request::u32(int type) const {
    return value_of<std::uint32_t>(*this, type);
}
std::uint64_t Request::u64(int type) const {
    return value_of<std::uint64_t>(*this, type);
}
std::uint8_t Request::u8(int type) const {
    return value_of<std::uint8_t>(*this, type);
}
std::uint16_t Request::port(int type) const {
    return ntohs(value_of<std::uint16_t>(*this, type));
}
std::string Request::address(int type) const {
    const auto found = attributes.find(type);
    return found == attributes.end() ? "" : Address::from_bytes(found->second)->to_string();
}

Request parse_request(const NlMsg& msg) {
    nlmsghdr* header = nlmsg_hdr(msg.get());
    std::array<nlattr*, TCP_MIGRATE_A_CONN_MAX + 1> table{};
    Request request;
    request.command = genlmsg_hdr(header)->cmd;
    request.flags = header->nlmsg_flags;
    genlmsg_parse(header, 0, table.data(), TCP_MIGRATE_A_CONN_MAX, nullptr);
    for (std::size_t type = 0; type < table.size(); type++) {
        if (table[type] != nullptr) {
            const auto* data = static_cast<const std::byte*>(nla_data(table[type]));
            request.attributes[static_cast<int>(type)] = Bytes(data, data + nla_len(table[type]));
        }
    }
    return request;
}

Bytes Kernel::dump() {
    Bytes all;
    const int flags = interrupted_dumps-- > 0 ? NLM_F_DUMP_INTR : 0;
    for (const auto& conn : connections) {
        append(all, make_connection_message(TCP_MIGRATE_CMD_GET, conn));
    }
    append(all, make_done_message(flags));
    return all;
}

/// Of one connection, named by its cookie.
void Kernel::take_key(const Request& request) {
    if (!request.has(TCP_MIGRATE_A_CONN_COOKIE)) {
        return;
    }
    const auto id = request.u8(TCP_MIGRATE_A_CONN_KEY_ID);
    const auto bit = static_cast<std::uint8_t>(1U << id);
    for (auto& conn : connections) {
        if (conn.cookie != request.u64(TCP_MIGRATE_A_CONN_COOKIE)) {
            continue;
        }
        switch (request.u8(TCP_MIGRATE_A_CONN_KEY_OP)) {
            case TCP_MIGRATE_KEY_OP_ADD:
                conn.key_mask |= bit;
                break;
            case TCP_MIGRATE_KEY_OP_EXCLUSIVE:
                conn.key_mask = bit;
                [[fallthrough]];
            case TCP_MIGRATE_KEY_OP_PROMOTE:
                conn.key_id = id;
                break;
            default:
                break;
        }
    }
}

Bytes Kernel::answer(const Request& request) {
    switch (request.command) {
        case TCP_MIGRATE_CMD_GET:
            for (const auto& conn : connections) {
                if (conn.cookie == request.u64(TCP_MIGRATE_A_CONN_COOKIE)) {
                    return make_connection_message(TCP_MIGRATE_CMD_GET, conn);
                }
            }
            return make_error_message(ENOENT);
        case TCP_MIGRATE_CMD_MIGRATE_ALL:
            return make_message(request.command, [&](nl_msg* msg) {
                nla_put_u32(msg, TCP_MIGRATE_A_CONN_COUNT, migrate_all_reply.count);
                nla_put_u32(msg, TCP_MIGRATE_A_CONN_FAILED, migrate_all_reply.failed);
                nla_put_u32(msg, TCP_MIGRATE_A_CONN_ERROR, migrate_all_reply.error);
            });
        case TCP_MIGRATE_CMD_KEY:
            take_key(request);
            return make_message(request.command, [&](nl_msg* msg) {
                nla_put_u32(msg, TCP_MIGRATE_A_CONN_COUNT,
                            static_cast<std::uint32_t>(connections.size()));
            });
        case TCP_MIGRATE_CMD_EXPORT:
            return make_message(request.command, [&](nl_msg* msg) {
                // The same at both ends, and another for each pair of ports.
                unsigned ports = 0;
                for (const auto& conn : connections) {
                    if (conn.cookie == request.u64(TCP_MIGRATE_A_CONN_COOKIE)) {
                        ports = unsigned{conn.local.port} + conn.remote.port - 5080;
                    }
                }
                const std::vector<unsigned char> value(
                    32, static_cast<unsigned char>(0xa5 ^ (ports & 0xff)));
                nla_put_u64(msg, TCP_MIGRATE_A_CONN_COOKIE, request.u64(TCP_MIGRATE_A_CONN_COOKIE));
                nla_put(msg, TCP_MIGRATE_A_CONN_EXPORTER, 32, value.data());
            });
        default:
            return {};
    }
}

Result<Reply> Kernel::handle(const NlMsg& msg) {
    const auto request = parse_request(msg);
    requests.push_back(request);
    Bytes datagram;
    if (const auto refused = refuse.find(request.command); refused != refuse.end()) {
        datagram = make_error_message(refused->second, refusal);
    } else if ((request.flags & NLM_F_DUMP) == NLM_F_DUMP) {
        datagram = dump();
    } else {
        datagram = answer(request);
        append(datagram, make_error_message(0));
    }
    if (on_migrate && (request.command == TCP_MIGRATE_CMD_MIGRATE ||
                       request.command == TCP_MIGRATE_CMD_MIGRATE_ALL)) {
        on_migrate();
    }
    Reply reply;
    if (auto result = absorb_datagram(datagram, kSeq, reply); !result) {
        return result.error();
    }
    if (reply.error) {
        return *reply.error;
    }
    return reply;
}

Result<std::vector<Connection>> Kernel::next_events(std::chrono::milliseconds timeout) {
    if (events.empty()) {
        if (timeout.count() < 0) {
            return make_error(ESHUTDOWN, "the script has no more events");
        }
        clock += timeout;
        return std::vector<Connection>{};
    }
    const auto next = events.front();
    events.pop_front();
    if (const int* error = std::get_if<int>(&next)) {
        if (on_overrun) {
            on_overrun();
        }
        return make_error(*error, std::strerror(*error));
    }
    return std::get<0>(next);
}

std::unique_ptr<Transport> make_transport(Kernel& kernel) {
    return std::make_unique<FakeTransport>(kernel);
}
std::unique_ptr<EventSource> make_events(Kernel& kernel) {
    return std::make_unique<FakeEvents>(kernel);
}

}  // namespace fake
