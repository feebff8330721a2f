// SPDX-License-Identifier: GPL-2.0-or-later
// The proxy's relays (thesis 3.3): reserves ports on a server's order, joins the two ends
// that send their MSYNs there, and follows them when they move. Segments come in and go
// out as bytes, time is told: all of it can be tested without a socket or a clock. What
// needs no thought is sent on by the data path.
//
//     reserved --MSYN of both--> spliced: each gets the other's, as MSYN,ACK
//              --CONFIRM of both--> joined: two flows --FINs, RST, idle--> ended
//     joined --MSYN of one--> passed to the other as a request without SYN, its answer back
//              as MSYN,ACK; CONFIRM of both --> joined, the mover at its new place
//
// The proxy has no key, and believes nobody: an MSYN is a candidate for the end whose token
// it names. There are several of them at most, each is answered, and what proves itself
// goes to all: only a genuine one gets a proof from the other end (A3.2). Two ends that
// have both proved something are joined at once; should it have been a forger, the genuine
// end's proof comes later, is passed on all the same, and its answer moves the relay.
//
// Not an open relay: without an order a port is closed, and what comes from anywhere but the
// two ends gets a reset, 100 a second at most; so an end whose NAPT has changed its mapping
// asks anew, and is found again.
//
// Not thread-safe.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <forward_list>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

#include "datapath/data_path.hpp"
#include "libmobility/identity.hpp"
#include "libmobility/log.hpp"
#include "libmobility/pace.hpp"
#include "libmobility/proxy_message.hpp"
#include "relay/fragments.hpp"
#include "relay/journal.hpp"
#include "relay/segment.hpp"

namespace mobility::proxy {

using Time = std::chrono::steady_clock::time_point;
using Duration = std::chrono::steady_clock::duration;

struct RelayLimits {
    std::size_t most = 20'000;                    ///< relays
    std::size_t per_host = 256;                   ///< ... of one host
    Duration reserved = std::chrono::minutes(3);  ///< a port that nobody has come to
    Duration idle = std::chrono::hours(2);        ///< without a segment

    bool operator==(const RelayLimits&) const = default;
};

/// What has happened since the start.
struct RelayCounters {
    std::uint64_t orders = 0;
    std::uint64_t reserved = 0;               ///< ports
    std::uint64_t renewed = 0;                ///< ... that were there already
    std::array<std::uint64_t, 8> declined{};  ///< orders, by Declined::Why
    std::uint64_t requests = 0;               ///< MSYNs, and requests without SYN
    std::uint64_t spliced = 0;                ///< answers made from the other end's MSYN
    std::uint64_t passed = 0;                 ///< requests passed on to an end that was joined
    std::uint64_t joined = 0;
    std::uint64_t moved = 0;       ///< ends that were found elsewhere
    std::uint64_t replayed = 0;    ///< requests that are over
    std::uint64_t crowded = 0;     ///< candidates that gave way to others
    std::uint64_t finished = 0;    ///< relays ended by FINs or RST
    std::uint64_t expired = 0;     ///< ... by time
    std::uint64_t no_relay = 0;    ///< segments to a port that is not reserved
    std::uint64_t strangers = 0;   ///< ... from no end of the relay
    std::uint64_t malformed = 0;   ///< no segments, or with a wrong port
    std::uint64_t too_long = 0;    ///< ... that were not handed up whole
    std::uint64_t resets = 0;      ///< sent
    std::uint64_t icmp = 0;        ///< errors translated
    std::uint64_t icmp_alien = 0;  ///< ... about nothing that is relayed
    std::uint64_t too_big = 0;     ///< answered
    std::uint64_t mended = 0;      ///< segments that came in fragments
    std::uint64_t failed = 0;      ///< flows or records that the kernel did not take
};

class Relays {
  public:
    /// Candidates for an end.
    static constexpr std::size_t kCandidates = 4;
    static constexpr Duration kCandidateLife = std::chrono::seconds(60);
    /// So long an end that has asked counts as asking still.
    static constexpr Duration kAsking = std::chrono::seconds(2);
    /// Of one relay; a pair of hosts has as many servers. One more takes the place of the oldest.
    static constexpr std::size_t kCustomers = 4;
    /// After FINs, an RST, or a move: what is late may still come.
    static constexpr Duration kLinger = std::chrono::seconds(60);
    /// Places of a relay that were left, of which flows are there still. One more takes the place
    /// of that which has been quiet for longest.
    static constexpr std::size_t kLeft = 8;
    static constexpr Duration kSweep = std::chrono::seconds(5);

    /// Who wants to be told where ends are: a channel, and the number of its Order.
    struct Customer {
        std::uint64_t channel = 0;
        std::uint64_t number = 0;
    };
    struct Hands {
        std::function<void(const Octets& packet)> send;
        std::function<Time()> now;
        /// False if a program of this host has this port.
        std::function<bool(const Endpoint&)> is_free;
        /// Any number; tests replace it.
        std::function<std::uint32_t()> random;
        /// The ends of this connection are met there.
        std::function<void(const Customer&, const RelayPair&)> met;
    };
    struct Ports {
        std::optional<boost::asio::ip::address_v4> address;
        std::optional<boost::asio::ip::address_v6> address6;
        std::uint16_t first = 0;
        std::uint16_t last = 0;
    };
    /// What there is to see of one.
    struct Seen {
        Record record;
        bool joined = false;
        std::array<std::optional<FlowSeen>, 2> flows;  ///< what comes from either end
    };

    /// DataPath and Journal outlive it.
    Relays(const Ports& ports, const RelayLimits& limits, DataPath& flows, Journal& journal,
           Hands hands, Log log);

    /// Takes over what the journal and the data path have of an earlier life.
    void restore();
    /// The answer is Reserved or Declined. `channel`: to be told where ends are met; 0: none.
    FromProxy order(const Order& order, std::uint64_t channel = 0);
    void on_event(const Event& event);
    void on_packet(View packet, std::size_t length);
    /// Ends what is over. To be called every kSweep.
    void sweep();

    /// For what is ordered from now on. How many there may be stays: the kernel's maps are made
    /// for that.
    void set_limits(const RelayLimits& limits);
    [[nodiscard]] Load load() const;
    [[nodiscard]] std::vector<Seen> seen() const;
    [[nodiscard]] const RelayCounters& counters() const { return counters_; }
    [[nodiscard]] const Fragments& fragments() const { return fragments_; }

  private:
    /// Somebody who has asked as this end.
    struct Candidate {
        Endpoint from;
        Segment asked;  ///< the request
        Time seen;
        bool confirmed = false;              ///< has sent something that may be a proof
        std::uint32_t ack = 0;               ///< ... with this acknowledgment number
        std::optional<std::uint32_t> tsval;  ///< ... with this timestamp
    };
    // There are many of these two. What is needed seldom is in the journal only: hosts,
    // inner addresses, SYN options.
    struct End {
        std::uint32_t token = 0;              ///< that its requests name
        std::uint16_t inner_port = 0;         ///< before any translation
        std::optional<std::uint8_t> asked;    ///< ReqNo of its last request from its place
        std::optional<Place> place;           ///< where it is seen
        std::optional<std::uint32_t> ack;     ///< last one of its own that went through our hands
        std::optional<std::uint32_t> echoed;  ///< timestamp, by the other end, last
        std::forward_list<Candidate> candidates;
    };
    struct Relay {
        Place proxy;
        std::optional<std::uint8_t> done;  ///< last ReqNo that an end has moved by, or was answered
        std::array<End, 2> ends;
        Time since;                             ///< ordered, or last asked for
        std::forward_list<Customer> customers;  ///< one of a channel; the newest first
    };
    using Tokens = std::pair<std::uint32_t, std::uint32_t>;
    using Retired = std::map<std::pair<Place, Place>, Time>;  ///< by the proxy's end and the other

    // Orders.
    std::optional<Declined> refuse(const Order& order) const;
    [[nodiscard]] static Tokens tokens_of(const RelayPair& pair);
    Relay* find(const RelayPair& pair);
    std::optional<std::uint16_t> free_port(const Address& address);
    /// Null if the kernel has no room for its record.
    Relay* reserve(const Order& order, const RelayPair& pair, const Endpoint& proxy);
    void renew(Relay& relay, const RelayPair& pair);
    static void remember(Relay& relay, const Customer& customer);
    void tell_met(const Relay& relay);
    std::optional<Address> address_for(const RelayPair& pair) const;
    [[nodiscard]] bool is_ours(const Endpoint& proxy) const;

    // Segments.
    void on_segment(const Segment& segment);
    void on_request(Relay& relay, const Segment& segment);
    /// Something was moved by this request, or a later one, already.
    [[nodiscard]] static bool has_gone_before(const Relay& relay, std::uint8_t reqno);
    static void is_done(Relay& relay, std::uint8_t reqno);
    void splice(Relay& relay, std::size_t side, Candidate& candidate, bool fresh);
    void pass_request(const Relay& relay, std::size_t side, const Segment& asked);
    /// Does this end ask, too, from where it is known to be?
    [[nodiscard]] bool asks_itself(const End& end) const;
    void on_answer(Relay& relay, const Segment& segment);
    [[nodiscard]] static std::vector<Endpoint> answered_by(const End& end,
                                                           const MigrateOption& confirm);
    void on_confirm(Relay& relay, const Segment& segment);
    void on_plain(Relay& relay, const Segment& segment);
    void on_icmp(View packet);
    void on_too_big(const Event& event);
    void reset(const Segment& segment);
    void send_to(const Relay& relay, const Segment& segment, const Endpoint& to);
    /// To wherever this end may be.
    void send_to_all(const Relay& relay, const Segment& segment, const End& end);

    // Ends.
    [[nodiscard]] static std::optional<std::size_t> side_of(const Relay& relay,
                                                            std::uint32_t token);
    static Candidate* candidate(End& end, const Endpoint& from);
    Candidate& make_candidate(End& end, const Endpoint& from);
    [[nodiscard]] std::optional<std::uint32_t> ack_of(const Relay& relay, const End& end) const;
    [[nodiscard]] static const Candidate* proved(const End& end);
    /// Joins, if now one of either end has sent a proof; whether it has.
    bool join_if_ready(Relay& relay);
    /// Has an end that was joined said something a moment ago, from where it was?
    [[nodiscard]] bool is_alive(const Relay& relay) const;
    /// This answer of an end to a proof says where the other is.
    void settle(Relay& relay, std::size_t side, const Segment& confirm);
    void move_to(Relay& relay, std::size_t side, const Candidate& winner);
    void set_flows(Relay& relay);
    void retire(const Tuple& in);
    static Tuple tuple_of(const Retired::value_type& entry);
    /// Of this endpoint of the proxy.
    /// Places that were left of the relay at this endpoint: first, and behind the last.
    [[nodiscard]] std::pair<Retired::const_iterator, Retired::const_iterator> left_at(
        const Place& proxy) const;
    /// Has the journal know of this end what `change` makes of it.
    void record(const Relay& relay, std::size_t side,
                const std::function<void(RecordedEnd&)>& change);
    bool put(const Record& record);
    void count_hosts();
    [[nodiscard]] bool is_over(Relay& relay, Time now);
    void end(Relay& relay);
    void release_hosts(const Endpoint& proxy);

    Ports ports_;
    RelayLimits limits_;
    DataPath& flows_;
    Journal& journal_;
    Hands hands_;
    Log log_;
    std::map<Place, Relay> relays_;  ///< by the proxy's endpoint
    std::map<Tokens, Relay*> by_tokens_;
    std::map<Name, std::size_t> of_host_;
    Retired retired_;  ///< flows from places that were left, and until when
    Fragments fragments_;
    Pace reset_pace_;
    RelayCounters counters_;
};

}  // namespace mobility::proxy
