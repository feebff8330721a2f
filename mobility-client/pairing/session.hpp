// SPDX-License-Identifier: GPL-2.0-or-later
// The exchange of two hosts before a move (A2.1), as one of them goes through it on one
// channel: a state machine without input and output of its own. Messages go in, messages
// come out; what it does to the kernel goes through an interface. proto/peer.proto has
// the sequence.
//
//   Opener     Starting --start()--> Offered --Answer--> Open
//   Accepter   Starting --Offer----> Answered --Confirm--> Open
//   any state  --a message that is wrong or comes out of turn--> Ended
//
// Whether the peer is believed to be who it is depends on the vouchers in its first message,
// Offer or Answer: nothing of that is looked at before. That the peer has the name that was
// shown is known by the channel.
//
// A connection counts as the pair's when its peer has proved to know its key, on this
// channel and under the name that the channel has shown; never before. A connection
// that one host has proved stays that host's: another one is refused.
//
// Each batch of connections goes through the stages of the pair key by itself, so that
// neither end is stranded: who has proved them promotes the key when the other has added
// it, the other does when it hears that, and then each may refuse all other keys. With
// each proof goes whether the prover holds a pair key for the connection already, of an
// earlier channel: if both do they keep it, else both add the new one. So a client that was
// started anew, or a channel that broke off in the middle, leaves nobody with another key.
#pragma once

#include <array>
#include <boost/asio/ip/address.hpp>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "libmobility/peer_message.hpp"
#include "libmobility/voucher.hpp"
#include "pairing/book.hpp"
#include "tcpmigrate/types.hpp"

namespace mobility::client {

/// A migratable connection, as far as a proof needs it. Ports are in host byte order.
struct Provable {
    std::uint64_t cookie = 0;
    std::uint16_t own = 0;         ///< this end's port
    std::uint16_t peer = 0;        ///< the peer's, as this end sees it
    std::uint16_t peer_inner = 0;  ///< the peer's, as the peer sees it
    bool opener = false;           ///< this end opened it
    Guard held = Guard::Proved;    ///< what the kernel has of a pair key; Proved: none
};

/// What a session asks of the kernel. Calls do not block for long.
class Kernel {
  public:
    using Exporter = std::array<std::uint8_t, 32>;

    Kernel() = default;
    virtual ~Kernel() = default;
    Kernel(const Kernel&) = delete;
    Kernel& operator=(const Kernel&) = delete;

    /// Those whose peer is at this address.
    virtual std::vector<Provable> connections(const boost::asio::ip::address& peer) = 0;
    virtual Result<Exporter> exporter(std::uint64_t cookie) = 0;
    /// `secret` only for KeyOp::Add.
    virtual Result<void> key(std::uint64_t cookie, tcpmigrate::KeyOp op,
                             std::span<const std::uint8_t, 32> secret) = 0;
};

/// The channel, as the two ends of it are known by it.
struct ChannelView {
    Name self;
    Name peer;
    boost::asio::ip::address here;   ///< this host's address on it
    boost::asio::ip::address there;  ///< the peer's, as this host sees it
    std::array<std::uint8_t, 32> exporter{};
    std::array<std::uint8_t, 32> pair_secret{};
};

/// What is the same for all sessions of a client.
struct Settings {
    std::string software;
    std::vector<ServerPlace> servers;  ///< that this host can use, the best first
    bool pair_key = true;              ///< install it
    bool exclusive = true;             ///< and refuse the in-band key then
    /// Can this host use a server that the peer has named?
    std::function<bool(const ServerPlace&)> usable = [](const ServerPlace&) { return false; };
    /// Tickets that admit the peer, for this pair, to servers of which only this host knows.
    std::function<std::vector<Ticket>(const Name& guest, const PairId& pair)> tickets =
        [](const Name&, const PairId&) { return std::vector<Ticket>(); };
    /// That servers have given this host.
    std::function<std::vector<Voucher>()> vouchers = [] { return std::vector<Voucher>(); };
    /// Is this peer believed to be who it is, now that it has shown these? Who vouches for it,
    /// if anybody does; or why it is not believed.
    std::function<Result<std::optional<Vouched>>(const ChannelView& channel,
                                                 const std::vector<Voucher>& shown)>
        believed = [](const ChannelView&, const std::vector<Voucher>&) {
            return Result<std::optional<Vouched>>(std::nullopt);
        };
};

/// Not thread-safe. Kernel, Book and Settings outlive it.
class Session {
  public:
    using Messages = std::vector<ToPeer>;
    enum class State : std::uint8_t { Starting, Offered, Answered, Open, Ended };
    struct Counters {
        std::uint64_t proved = 0;          ///< connections whose proof was good
        std::uint64_t not_proved = 0;      ///< ... or was not, or that nobody knows here
        std::uint64_t other_identity = 0;  ///< ... that another host has proved
        std::uint64_t key_errors = 0;      ///< the kernel did not take a key
    };

    Session(const ChannelView& channel, const Settings& settings, Kernel& kernel, Book& book);

    /// The end that opened the channel speaks first: an Offer; or nothing, and the session
    /// has ended, if there is no connection to the peer's address.
    Messages start();
    /// What to say to a message. After a PeerRefused the session has ended.
    Messages take(const ToPeer& message);
    /// The channel has moved along with the peer.
    void moved(const boost::asio::ip::address& there) { channel_.there = there; }
    /// Connections have come: what is to be said of them.
    Messages refresh();

    [[nodiscard]] State state() const { return state_; }
    [[nodiscard]] bool ended() const { return state_ == State::Ended; }
    /// Why it has ended, for people; empty if the peer ended it without a word.
    [[nodiscard]] const std::string& reason() const { return reason_; }
    [[nodiscard]] const Counters& counters() const { return counters_; }
    /// Who vouches for the peer, as it has shown on this channel.
    [[nodiscard]] const std::optional<Vouched>& vouched() const { return vouched_; }

  private:
    using Cookies = std::vector<std::uint64_t>;
    /// What the two ends prove a connection with, on this channel.
    struct Proofs {
        Proof own{};
        Proof peers{};
    };
    /// By head() of the peer's proof.
    using Expected = std::unordered_map<std::uint64_t, std::pair<Provable, Proof>>;
    struct Judged {
        std::vector<ConnectionProof> own;  ///< this end's proofs of the good ones
        Cookies good;
        std::map<std::uint64_t, Guard> kept;  ///< of these, what both hold a key for
        bool other_identity = false;
    };

    Messages handle(const Offer& offer);
    Messages handle(const Answer& answer);
    Messages handle(const Confirm& confirm);
    Messages handle(const Prove& prove);
    Messages handle(const Proved& proved);
    Messages handle(const Stage& stage);
    Messages handle(const PeerRefused& refused);

    /// Of the book; null if that is full, or has forgotten what this channel has agreed on.
    Pair* pair();
    Messages refuse(PeerRefused::Why why, std::string text);
    /// What to refuse it with, if it is not believed to be who it is.
    Messages believe(const std::vector<Voucher>& shown);
    std::vector<Provable> connections();
    /// Made once for each connection; null if it has ended.
    const Proofs* proofs_of(const Provable& connection);
    std::optional<ConnectionProof> proof_of(const Provable& connection);
    Expected expected(const std::vector<ConnectionProof>& proofs);
    Judged judge(const std::vector<ConnectionProof>& proofs);
    std::vector<ConnectionProof> prove_new();
    Messages accepted(std::uint32_t batch, const std::vector<ConnectionProof>& proofs);
    Messages promote(std::uint32_t batch, const Cookies& cookies, bool own);
    bool remember(const Judged& judged);
    void guard(const Cookies& cookies, tcpmigrate::KeyOp op, Guard guard);
    /// But for those that are known `already`.
    std::vector<ServerPlace> usable_of(const std::vector<ServerPlace>& servers,
                                       std::vector<std::uint32_t>& places,
                                       const std::vector<ServerPlace>& already) const;

    ChannelView channel_;
    const Settings& settings_;
    Kernel& kernel_;
    Book& book_;
    State state_ = State::Starting;
    std::string reason_;
    std::optional<PairPart> own_;  ///< this end's part, once the pair has been opened
    Counters counters_;
    std::optional<Vouched> vouched_;
    std::uint32_t batch_ = 0;                        ///< the last that this end has proved
    std::uint32_t peer_batch_ = 0;                   ///< the last that the peer has
    std::map<std::uint64_t, Proofs> proofs_;         ///< by cookie
    std::map<std::uint32_t, Cookies> own_batches_;   ///< asked, and later promoted, here first
    std::map<std::uint32_t, Cookies> peer_batches_;  ///< added here, not yet promoted
    std::set<std::uint64_t> asked_;                  ///< proved by this end
    std::set<std::uint64_t> remembered_;             ///< proved by both, on this channel
    std::vector<ServerPlace> answered_;              ///< what Confirm's places refer to
};

}  // namespace mobility::client
