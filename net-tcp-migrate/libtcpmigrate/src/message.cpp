// SPDX-License-Identifier: GPL-2.0-or-later
// Encoding goes through libnl. Decoding reads plain bytes with a small bounded
// reader of its own instead of nla_parse(): input is untrusted and may be
// unaligned, and so the sanitizers see every access when it is fuzzed.

#include "tcpmigrate/message.hpp"

#include <arpa/inet.h>
#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <linux/tcp_migrate.h>
#include <netlink/attr.h>
#include <netlink/genl/genl.h>
#include <netlink/msg.h>
#include <strings.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace tcpmigrate {

namespace {

// ---- encoding -------------------------------------------------------------

/// Collects attributes; remembers the first failure, so that callers need not
/// test each put.
class Encoder {
  public:
    explicit Encoder(std::uint8_t command, int flags = 0) : msg_(nlmsg_alloc()) {
        failed_ = !msg_ || genlmsg_put(msg_.get(), NL_AUTO_PORT, NL_AUTO_SEQ, 0, 0, flags, command,
                                       TCP_MIGRATE_FAMILY_VERSION) == nullptr;
    }

    void u8(int type, std::uint8_t value) { bytes(type, &value, sizeof(value)); }
    void u16(int type, std::uint16_t value) { bytes(type, &value, sizeof(value)); }
    void u32(int type, std::uint32_t value) { bytes(type, &value, sizeof(value)); }
    void u64(int type, std::uint64_t value) { bytes(type, &value, sizeof(value)); }
    void port(int type, std::uint16_t value) { u16(type, htons(value)); }
    void address(int type, const Address& value) {
        bytes(type, value.bytes().data(), value.bytes().size());
    }
    void bytes(int type, const void* data, std::size_t size) {
        failed_ = failed_ || nla_put(msg_.get(), type, static_cast<int>(size), data) < 0;
    }

    /// First address of the request decides its family; another one must agree.
    void family_of(const Address& value) {
        if (family_ == 0) {
            family_ = value.family();
            u16(TCP_MIGRATE_A_CONN_FAMILY, static_cast<std::uint16_t>(family_));
        }
        mixed_ = mixed_ || family_ != value.family();
    }

    Result<NlMsg> finish() && {
        if (mixed_) {
            return make_error(EINVAL,
                              "IPv4 and IPv6 addresses are mixed: a connection keeps its "
                              "address family");
        }
        if (failed_) {
            return make_error(ENOMEM, "out of memory for a netlink message");
        }
        return std::move(msg_);
    }

  private:
    NlMsg msg_;
    bool failed_ = false;
    bool mixed_ = false;
    int family_ = 0;
};

void put_name(Encoder& out, const Name& name) {
    if (const auto* cookie = std::get_if<Cookie>(&name)) {
        out.u64(TCP_MIGRATE_A_CONN_COOKIE, cookie->value);
    } else if (const auto* token = std::get_if<Token>(&name)) {
        out.u32(TCP_MIGRATE_A_CONN_TOKEN, token->value);
    } else if (const auto* tuple = std::get_if<Tuple>(&name)) {
        out.family_of(tuple->local.address);
        out.family_of(tuple->remote.address);
        out.address(TCP_MIGRATE_A_CONN_LOCAL_ADDR, tuple->local.address);
        out.port(TCP_MIGRATE_A_CONN_LOCAL_PORT, tuple->local.port);
        out.address(TCP_MIGRATE_A_CONN_REMOTE_ADDR, tuple->remote.address);
        out.port(TCP_MIGRATE_A_CONN_REMOTE_PORT, tuple->remote.port);
    }
}

void put_target(Encoder& out, int address_type, int port_type, const Target& target) {
    if (target.address) {
        out.family_of(*target.address);
        out.address(address_type, *target.address);
    }
    if (target.port) {
        out.port(port_type, *target.port);
    }
}

void put_how(Encoder& out, std::uint32_t if_index, bool trial, bool no_syn) {
    if (if_index != 0) {
        out.u32(TCP_MIGRATE_A_CONN_IF_INDEX, if_index);
    }
    std::uint32_t flags = 0;
    if (trial) {
        flags |= TCP_MIGRATE_MIGRATE_FLAGS_TRIAL;
    }
    if (no_syn) {
        flags |= TCP_MIGRATE_MIGRATE_FLAGS_NO_SYN;
    }
    if (flags != 0) {
        out.u32(TCP_MIGRATE_A_CONN_FLAGS, flags);
    }
}

Result<NlMsg> encode_named(std::uint8_t command, const Name& name) {
    Encoder out(command);
    put_name(out, name);
    return std::move(out).finish();
}

// ---- decoding -------------------------------------------------------------

using View = std::span<const std::byte>;

/// Copies a T from the start of `from`, which must be long enough.
template <typename T>
T load(View from) {
    T value{};
    std::memcpy(&value, from.data(), sizeof(T));
    return value;
}

/// Cuts the next padded block of at least `header` bytes off `rest`; `length`
/// is what the block claims. Empty if the claim does not fit.
View take_block(View& rest, std::size_t length, std::size_t header) {
    if (length < header || length > rest.size()) {
        return {};
    }
    const View block = rest.first(length);
    rest = rest.subspan(std::min(rest.size(), (length + 3) & ~std::size_t{3}));
    return block;
}

Error damaged(const std::string& what) {
    return make_error(EBADMSG, "damaged netlink message: " + what);
}

/// The attributes of one message by type. The last of a kind wins, as in the
/// kernel; unknown types are skipped.
class Attributes {
  public:
    static Result<Attributes> parse(View rest) {
        Attributes found;
        while (rest.size() >= NLA_HDRLEN) {
            const auto head = load<nlattr>(rest);
            const View block = take_block(rest, head.nla_len, NLA_HDRLEN);
            if (block.empty()) {
                return damaged("an attribute is longer than the message");
            }
            const unsigned type = head.nla_type & NLA_TYPE_MASK;
            if (type <= TCP_MIGRATE_A_CONN_MAX) {
                found.values_[type] = block.subspan(NLA_HDRLEN);
            }
        }
        return found;
    }

    /// Absent, or of another size than T: nothing.
    template <typename T>
    [[nodiscard]] std::optional<T> get(int type) const {
        const auto& value = values_[static_cast<std::size_t>(type)];
        if (!value || value->size() != sizeof(T)) {
            return std::nullopt;
        }
        return load<T>(*value);
    }
    template <typename T>
    void read(int type, T& into) const {
        into = get<T>(type).value_or(into);
    }
    [[nodiscard]] std::optional<std::uint16_t> port(int type) const {
        const auto value = get<std::uint16_t>(type);
        return value ? std::optional(ntohs(*value)) : std::nullopt;
    }
    [[nodiscard]] std::optional<Address> address(int type) const {
        const auto& value = values_[static_cast<std::size_t>(type)];
        auto parsed = Address::from_bytes(value.value_or(View{}));
        return parsed ? std::optional(*parsed) : std::nullopt;
    }
    [[nodiscard]] Target target(int address_type, int port_type) const {
        return Target{address(address_type), port(port_type)};
    }

  private:
    std::array<std::optional<View>, TCP_MIGRATE_A_CONN_MAX + 1> values_{};
};

/// Checks both headers and parses what follows them.
Result<Attributes> parse_message(View message) {
    if (message.size() < NLMSG_HDRLEN + GENL_HDRLEN) {
        return damaged("it is shorter than its headers");
    }
    const auto length = load<nlmsghdr>(message).nlmsg_len;
    if (length < NLMSG_HDRLEN + GENL_HDRLEN || length > message.size()) {
        return damaged("its length field does not fit");
    }
    return Attributes::parse(message.first(length).subspan(NLMSG_HDRLEN + GENL_HDRLEN));
}

std::optional<PeerInner> peer_inner(const Attributes& in) {
    const auto address = in.get<std::array<std::byte, 4>>(TCP_MIGRATE_A_CONN_PEER_INNER_ADDR);
    if (!address) {
        return std::nullopt;
    }
    return PeerInner{*address, in.port(TCP_MIGRATE_A_CONN_PEER_INNER_PORT).value_or(0)};
}

/// The part that every reply and event has: which connection it is about.
Result<Connection> decode_identity(const Attributes& in) {
    Connection conn;
    const auto cookie = in.get<std::uint64_t>(TCP_MIGRATE_A_CONN_COOKIE);
    const auto local = in.address(TCP_MIGRATE_A_CONN_LOCAL_ADDR);
    const auto remote = in.address(TCP_MIGRATE_A_CONN_REMOTE_ADDR);
    if (!cookie || !local || !remote) {
        return damaged("it does not say which connection it is about");
    }
    if (local->is_v6() != remote->is_v6()) {
        return damaged("local and remote address are of different families");
    }
    conn.cookie = *cookie;
    conn.local = {*local, in.port(TCP_MIGRATE_A_CONN_LOCAL_PORT).value_or(0)};
    conn.remote = {*remote, in.port(TCP_MIGRATE_A_CONN_REMOTE_PORT).value_or(0)};
    return conn;
}

Connection decode_details(const Attributes& in, Connection conn) {
    conn.state = State{in.get<std::uint8_t>(TCP_MIGRATE_A_CONN_STATE).value_or(0)};
    conn.reason = Reason{in.get<std::uint8_t>(TCP_MIGRATE_A_CONN_REASON).value_or(0)};
    in.read(TCP_MIGRATE_A_CONN_TCP_STATE, conn.tcp_state);
    conn.opener = in.get<std::uint8_t>(TCP_MIGRATE_A_CONN_ROLE).value_or(0) != 0;
    conn.peer_nat = in.get<std::uint8_t>(TCP_MIGRATE_A_CONN_PEER_NAT).value_or(0) != 0;
    in.read(TCP_MIGRATE_A_CONN_REQNO, conn.reqno);
    in.read(TCP_MIGRATE_A_CONN_MIGRATIONS, conn.migrations);
    conn.peer_inner = peer_inner(in);
    conn.token_local = in.get<std::uint32_t>(TCP_MIGRATE_A_CONN_TOKEN_LOCAL);
    conn.token_remote = in.get<std::uint32_t>(TCP_MIGRATE_A_CONN_TOKEN_REMOTE);
    conn.new_local =
        in.target(TCP_MIGRATE_A_CONN_NEW_LOCAL_ADDR, TCP_MIGRATE_A_CONN_NEW_LOCAL_PORT);
    conn.new_remote =
        in.target(TCP_MIGRATE_A_CONN_NEW_REMOTE_ADDR, TCP_MIGRATE_A_CONN_NEW_REMOTE_PORT);
    in.read(TCP_MIGRATE_A_CONN_IF_INDEX, conn.if_index);
    conn.uid = in.get<std::uint32_t>(TCP_MIGRATE_A_CONN_UID);
    conn.inode = in.get<std::uint64_t>(TCP_MIGRATE_A_CONN_INODE);
    in.read(TCP_MIGRATE_A_CONN_AGE_MS, conn.age_ms);
    conn.left_ms = in.get<std::uint32_t>(TCP_MIGRATE_A_CONN_LEFT_MS);
    in.read(TCP_MIGRATE_A_CONN_KEY_ID, conn.key_id);
    in.read(TCP_MIGRATE_A_CONN_KEY_MASK, conn.key_mask);
    in.read(TCP_MIGRATE_A_CONN_ERROR, conn.error);
    return conn;
}

/// The kernel's sentence in the TLVs after an error, or strerror().
std::string refusal_text(View message, int error) {
    const auto head = load<nlmsghdr>(message);
    View rest = message.subspan(NLMSG_HDRLEN + sizeof(int));
    if ((head.nlmsg_flags & NLM_F_ACK_TLVS) == 0 || rest.size() < NLMSG_HDRLEN) {
        return std::strerror(error);
    }
    // The request follows, or only its header (NLM_F_CAPPED); then the TLVs.
    const std::size_t echoed =
        (head.nlmsg_flags & NLM_F_CAPPED) != 0 ? NLMSG_HDRLEN : load<nlmsghdr>(rest).nlmsg_len;
    if (take_block(rest, echoed, NLMSG_HDRLEN).empty()) {
        return std::strerror(error);
    }
    while (rest.size() >= NLA_HDRLEN) {
        const auto attr = load<nlattr>(rest);
        const View block = take_block(rest, attr.nla_len, NLA_HDRLEN);
        if (block.empty()) {
            break;
        }
        if ((attr.nla_type & NLA_TYPE_MASK) == NLMSGERR_ATTR_MSG && block.size() > NLA_HDRLEN) {
            const auto text = block.subspan(NLA_HDRLEN);
            const auto end = std::find(text.begin(), text.end(), std::byte{0});
            std::string sentence;
            std::transform(text.begin(), end, std::back_inserter(sentence),
                           [](std::byte b) { return static_cast<char>(b); });
            return sentence;
        }
    }
    return std::strerror(error);
}

/// NLMSG_ERROR and NLMSG_DONE both carry an errno, 0 for success. A DONE may
/// come without one.
Result<void> absorb_status(View message, bool is_error, Reply& reply) {
    reply.done = true;
    if (message.size() < NLMSG_HDRLEN + sizeof(int)) {
        return is_error ? Result<void>(damaged("an error without its number")) : Result<void>();
    }
    const auto status = load<std::int32_t>(message.subspan(NLMSG_HDRLEN));
    if (status > 0 || status < -4095) {
        return damaged("an error number out of range");
    }
    if (status < 0) {
        reply.error =
            make_error(-status, is_error ? refusal_text(message, -status) : std::strerror(-status));
    }
    return {};
}

/// Calls `each` for every message of a datagram.
template <typename Function>
Result<void> for_each_message(View rest, Function each) {
    while (!rest.empty()) {
        if (rest.size() < NLMSG_HDRLEN) {
            return damaged("a datagram ends within a header");
        }
        const View message = take_block(rest, load<nlmsghdr>(rest).nlmsg_len, NLMSG_HDRLEN);
        if (message.empty()) {
            return damaged("a message is longer than its datagram");
        }
        if (auto result = each(message, load<nlmsghdr>(message)); !result) {
            return result;
        }
    }
    return {};
}

}  // namespace

void NlMsgDeleter::operator()(nl_msg* msg) const noexcept {
    nlmsghdr* header = nlmsg_hdr(msg);
    explicit_bzero(header, header->nlmsg_len);
    nlmsg_free(msg);
}

Result<NlMsg> encode_dump() {
    return Encoder(TCP_MIGRATE_CMD_GET, NLM_F_DUMP).finish();
}

Result<NlMsg> encode_get(const Name& name) {
    return encode_named(TCP_MIGRATE_CMD_GET, name);
}

Result<NlMsg> encode_abort(const Name& name) {
    return encode_named(TCP_MIGRATE_CMD_ABORT, name);
}

Result<NlMsg> encode_export(const Name& name) {
    return encode_named(TCP_MIGRATE_CMD_EXPORT, name);
}

Result<NlMsg> encode_migrate(const MigrateRequest& request) {
    Encoder out(TCP_MIGRATE_CMD_MIGRATE);
    put_name(out, request.name);
    put_target(out, TCP_MIGRATE_A_CONN_NEW_LOCAL_ADDR, TCP_MIGRATE_A_CONN_NEW_LOCAL_PORT,
               request.new_local);
    put_target(out, TCP_MIGRATE_A_CONN_NEW_REMOTE_ADDR, TCP_MIGRATE_A_CONN_NEW_REMOTE_PORT,
               request.new_remote);
    put_how(out, request.if_index, request.trial, request.no_syn);
    return std::move(out).finish();
}

Result<NlMsg> encode_migrate_all(const MigrateAllRequest& request) {
    Encoder out(TCP_MIGRATE_CMD_MIGRATE_ALL);
    out.family_of(request.old_local);
    out.address(TCP_MIGRATE_A_CONN_LOCAL_ADDR, request.old_local);
    if (request.remote) {
        out.family_of(*request.remote);
        out.address(TCP_MIGRATE_A_CONN_REMOTE_ADDR, *request.remote);
    }
    put_target(out, TCP_MIGRATE_A_CONN_NEW_LOCAL_ADDR, 0, {request.new_local, std::nullopt});
    put_target(out, TCP_MIGRATE_A_CONN_NEW_REMOTE_ADDR, 0, {request.new_remote, std::nullopt});
    put_how(out, request.if_index, request.trial, request.no_syn);
    return std::move(out).finish();
}

Result<NlMsg> encode_key(const KeyRequest& request) {
    if (request.key_id < 1 || request.key_id > 3) {
        return make_error(EINVAL, "key " + std::to_string(request.key_id) +
                                      " does not exist: installed keys are 1 to 3");
    }
    if ((request.op == KeyOp::Add) != request.secret.has_value()) {
        return make_error(EINVAL, request.secret ? "only adding a key takes a secret"
                                                 : "adding a key takes a secret");
    }
    Encoder out(TCP_MIGRATE_CMD_KEY);
    if (const auto* address = std::get_if<Address>(&request.target)) {
        out.family_of(*address);
        out.address(TCP_MIGRATE_A_CONN_REMOTE_ADDR, *address);
    } else if (const auto* cookie = std::get_if<Cookie>(&request.target)) {
        put_name(out, *cookie);
    } else if (const auto* token = std::get_if<Token>(&request.target)) {
        put_name(out, *token);
    } else {
        put_name(out, *std::get_if<Tuple>(&request.target));
    }
    out.u8(TCP_MIGRATE_A_CONN_KEY_ID, request.key_id);
    out.u8(TCP_MIGRATE_A_CONN_KEY_OP, static_cast<std::uint8_t>(request.op));
    if (request.secret) {
        out.bytes(TCP_MIGRATE_A_CONN_KEY, request.secret->bytes().data(), Secret::size);
    }
    return std::move(out).finish();
}

Result<Connection> decode_connection(View message) {
    auto attributes = parse_message(message);
    if (!attributes) {
        return attributes.error();
    }
    auto identity = decode_identity(*attributes);
    if (!identity) {
        return identity.error();
    }
    return decode_details(*attributes, *identity);
}

Result<MigrateAllReply> decode_migrate_all(View message) {
    auto in = parse_message(message);
    if (!in) {
        return in.error();
    }
    MigrateAllReply reply;
    in->read(TCP_MIGRATE_A_CONN_COUNT, reply.count);
    in->read(TCP_MIGRATE_A_CONN_FAILED, reply.failed);
    in->read(TCP_MIGRATE_A_CONN_ERROR, reply.error);
    return reply;
}

Result<std::uint32_t> decode_key_count(View message) {
    auto in = parse_message(message);
    if (!in) {
        return in.error();
    }
    return in->get<std::uint32_t>(TCP_MIGRATE_A_CONN_COUNT).value_or(0);
}

Result<ExportReply> decode_export(View message) {
    auto in = parse_message(message);
    if (!in) {
        return in.error();
    }
    const auto value = in->get<std::array<std::byte, 32>>(TCP_MIGRATE_A_CONN_EXPORTER);
    if (!value) {
        return damaged("it carries no exporter value of 32 bytes");
    }
    return ExportReply{in->get<std::uint64_t>(TCP_MIGRATE_A_CONN_COOKIE).value_or(0), *value};
}

Result<void> absorb_datagram(View datagram, std::uint32_t seq, Reply& reply) {
    return for_each_message(datagram, [&](View message, const nlmsghdr& head) -> Result<void> {
        if (head.nlmsg_seq != seq || head.nlmsg_type == NLMSG_NOOP) {
            return {};
        }
        reply.interrupted = reply.interrupted || (head.nlmsg_flags & NLM_F_DUMP_INTR) != 0;
        if (head.nlmsg_type == NLMSG_ERROR || head.nlmsg_type == NLMSG_DONE) {
            return absorb_status(message, head.nlmsg_type == NLMSG_ERROR, reply);
        }
        reply.messages.emplace_back(message.begin(), message.end());
        return {};
    });
}

Result<std::vector<Connection>> decode_events(View datagram, std::uint16_t family) {
    std::vector<Connection> events;
    auto result =
        for_each_message(datagram, [&](View message, const nlmsghdr& head) -> Result<void> {
            if (head.nlmsg_type != family || message.size() < NLMSG_HDRLEN + GENL_HDRLEN ||
                load<genlmsghdr>(message.subspan(NLMSG_HDRLEN)).cmd != TCP_MIGRATE_CMD_EVENT) {
                return {};
            }
            auto event = decode_connection(message);
            if (!event) {
                return event.error();
            }
            events.push_back(*event);
            return {};
        });
    if (!result) {
        return result.error();
    }
    return events;
}

}  // namespace tcpmigrate
