// SPDX-License-Identifier: GPL-2.0-or-later
#include "relays.hpp"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <string>

namespace mobility::proxy {

namespace {

constexpr Pace::Limit kResets{100, 100};
/// So much of what has gone before is known to be over; ReqNo has 8 bits here.
constexpr int kOver = 64;
/// Who has moved says nothing any more from where it was.
constexpr auto kQuiet = std::chrono::milliseconds(300);

std::string text(const Endpoint& endpoint) {
    const auto ip = endpoint.address.to_string();
    return (endpoint.address.is_v4() ? ip : "[" + ip + "]") + ":" + std::to_string(endpoint.port);
}

RecordedEnd recorded(const Name& host, const RelayEnd& end) {
    return {host, end.token, Endpoint{end.address, end.port}, {}, {}};
}

/// Serial arithmetic (RFC 1982): has `ack` come to `end`?
bool covers(std::uint32_t ack, std::uint32_t end) {
    return static_cast<std::int32_t>(ack - end) >= 0;
}

/// Who has many addresses has them here.
Address network_of(const Address& address) {
    if (address.is_v4()) {
        return address;
    }
    auto bytes = address.to_v6().to_bytes();
    std::fill(bytes.begin() + 8, bytes.end(), 0);
    return boost::asio::ip::address_v6(bytes);
}

bool is_acknowledged(const FlowSeen& of, const FlowSeen& back) {
    return of.fin_end && back.ack && covers(*back.ack, *of.fin_end);
}

}  // namespace

Relays::Relays(const Ports& ports, const RelayLimits& limits, DataPath& flows, Journal& journal,
               Hands hands, Log log)
    : ports_(ports),
      limits_(limits),
      flows_(flows),
      journal_(journal),
      hands_(std::move(hands)),
      log_(std::move(log)),
      reset_pace_(kResets, hands_.now()) {}

void Relays::restore() {
    const auto now = hands_.now();
    std::size_t elsewhere = 0;
    for (const auto& known : journal_.all()) {
        if (!is_ours(known.proxy)) {
            elsewhere++;
            journal_.remove(known.proxy);
            continue;
        }
        auto& relay = relays_[known.proxy];
        relay.proxy = known.proxy;
        relay.since = now;
        for (std::size_t i = 0; i < 2; i++) {
            const auto& end = known.ends.at(i);
            relay.ends.at(i).token = end.token;
            relay.ends.at(i).inner_port = end.inner.port();
            relay.ends.at(i).place = end.place;
        }
        by_tokens_[std::minmax(relay.ends[0].token, relay.ends[1].token)] = &relay;
    }
    count_hosts();
    // What an end has left, or nobody knows of: for late segments, or for nothing.
    for (const auto& [in, flow] : flows_.flows()) {
        const auto at = relays_.find(in.to);
        const bool current = at != relays_.end() && (at->second.ends[0].place == in.from ||
                                                     at->second.ends[1].place == in.from);
        if (!current) {
            retire(in);
        }
    }
    // What was killed between a record and its flows.
    for (auto& [proxy, relay] : relays_) {
        set_flows(relay);
    }
    if (!relays_.empty()) {
        log_->info("event=restored relays={}", relays_.size());
    }
    if (elsewhere != 0) {
        log_->warn("event=not-restored relays={} why=\"at other addresses or ports\"", elsewhere);
    }
}

/// The configuration may be another now.
bool Relays::is_ours(const Endpoint& proxy) const {
    const auto& ip = proxy.address;
    const bool address = ip.is_v4() ? ports_.address == ip.to_v4() : ports_.address6 == ip.to_v6();
    return address && proxy.port >= ports_.first && proxy.port <= ports_.last;
}

void Relays::set_limits(const RelayLimits& limits) {
    const auto most = limits_.most;
    limits_ = limits;
    limits_.most = most;
}

// ---- Orders ----

Relays::Tokens Relays::tokens_of(const RelayPair& pair) {
    return std::minmax(pair.first.token, pair.second.token);
}

Relays::Relay* Relays::find(const RelayPair& pair) {
    const auto at = by_tokens_.find(tokens_of(pair));
    return at == by_tokens_.end() ? nullptr : at->second;
}

std::optional<Address> Relays::address_for(const RelayPair& pair) const {
    if (pair.first.address.is_v4()) {
        return ports_.address ? std::optional<Address>(*ports_.address) : std::nullopt;
    }
    return ports_.address6 ? std::optional<Address>(*ports_.address6) : std::nullopt;
}

std::optional<Declined> Relays::refuse(const Order& order) const {
    const auto no = [&](Declined::Why why, const char* said) {
        return Declined{order.number, why, said};
    };
    if (!address_for(order.connections.front())) {
        return no(Declined::Why::Family, "this proxy has no address of that family");
    }
    std::size_t fresh = 0;
    for (const auto& pair : order.connections) {
        if (pair.first.token == pair.second.token) {
            return no(Declined::Why::Malformed, "the same token at both ends");
        }
        const auto at = by_tokens_.find(tokens_of(pair));
        if (at == by_tokens_.end()) {
            fresh++;
            continue;
        }
        const auto known = journal_.get(at->second->proxy);
        if (!known || known->proxy.address != address_for(pair) ||
            std::minmax(known->ends[0].host, known->ends[1].host) !=
                std::minmax(order.first, order.second)) {
            return no(Declined::Why::Duplicate, "tokens of other hosts' connection");
        }
    }
    if (relays_.size() + fresh > limits_.most) {
        return no(Declined::Why::Full, "no room for more relays");
    }
    for (const auto& host : {order.first, order.second}) {
        const auto has = of_host_.find(host);
        if (fresh + (has == of_host_.end() ? 0 : has->second) > limits_.per_host) {
            return no(Declined::Why::Quota, "a host has as many relays as it may");
        }
    }
    return {};
}

void Relays::remember(Relay& relay, const Customer& customer) {
    if (customer.channel == 0) {
        return;
    }
    auto& all = relay.customers;
    all.remove_if([&](const Customer& one) { return one.channel == customer.channel; });
    all.push_front(customer);
    std::size_t count = 0;
    all.remove_if([&](const Customer& /*one*/) { return ++count > kCustomers; });
}

/// If they are: what an order has of a relay that is joined already is told as well.
void Relays::tell_met(const Relay& relay) {
    const auto& first = relay.ends[0];
    const auto& second = relay.ends[1];
    if (!first.place || !second.place) {
        return;
    }
    const Endpoint one = *first.place;
    const Endpoint two = *second.place;
    const RelayPair pair{{first.token, one.address, one.port},
                         {second.token, two.address, two.port}};
    for (const auto& customer : relay.customers) {
        hands_.met(customer, pair);
    }
}

FromProxy Relays::order(const Order& order, std::uint64_t channel) {
    counters_.orders++;
    auto declined = refuse(order);
    Reserved out{order.number, {}, {}};
    for (const auto& pair : order.connections) {
        if (declined) {
            break;
        }
        out.address = *address_for(pair);
        if (auto* known = find(pair)) {
            renew(*known, pair);
            remember(*known, {channel, order.number});
            tell_met(*known);
            counters_.renewed++;
            out.ports.push_back(known->proxy.port());
            continue;
        }
        const auto port = free_port(out.address);
        auto* fresh = port ? reserve(order, pair, {out.address, *port}) : nullptr;
        if (fresh != nullptr) {
            remember(*fresh, {channel, order.number});
            out.ports.push_back(*port);
        } else {
            // Those that were reserved already go when nobody comes.
            declined = Declined{order.number, Declined::Why::Full,
                                port ? "no room to record more relays" : "no port is free"};
        }
    }
    if (declined) {
        counters_.declined.at(static_cast<std::size_t>(declined->why))++;
        log_->info("event=declined why={} hosts={},{} connections={}", to_string(declined->why),
                   order.first.to_string(), order.second.to_string(), order.connections.size());
        return *declined;
    }
    log_->info("event=reserved hosts={},{} connections={} first={}", order.first.to_string(),
               order.second.to_string(), out.ports.size(), text({out.address, out.ports.front()}));
    return out;
}

std::optional<std::uint16_t> Relays::free_port(const Address& address) {
    const std::uint32_t all = ports_.last - ports_.first + 1U;
    const auto begin = hands_.random() % all;
    for (std::uint32_t i = 0; i < all; i++) {
        const Endpoint at{address, static_cast<std::uint16_t>(ports_.first + (begin + i) % all)};
        if (!relays_.contains(at) && hands_.is_free(at)) {
            return at.port;
        }
    }
    return {};
}

Relays::Relay* Relays::reserve(const Order& order, const RelayPair& pair, const Endpoint& proxy) {
    if (!put({proxy, {recorded(order.first, pair.first), recorded(order.second, pair.second)}})) {
        return nullptr;
    }
    auto& relay = relays_[proxy];
    relay.proxy = proxy;
    relay.since = hands_.now();
    relay.ends[0].token = pair.first.token;
    relay.ends[0].inner_port = pair.first.port;
    relay.ends[1].token = pair.second.token;
    relay.ends[1].inner_port = pair.second.port;
    by_tokens_[tokens_of(pair)] = &relay;
    of_host_[order.first]++;
    of_host_[order.second]++;
    counters_.reserved++;
    return &relay;
}

void Relays::renew(Relay& relay, const RelayPair& pair) {
    relay.since = hands_.now();
    // What happens meanwhile without the proxy it does not see.
    relay.done.reset();
    for (const auto* end : {&pair.first, &pair.second}) {
        const auto side = *side_of(relay, end->token);
        relay.ends.at(side).inner_port = end->port;
        record(relay, side, [&](RecordedEnd& known) {
            known.inner = Endpoint{end->address, end->port};
        });
    }
}

// ---- Segments ----

void Relays::on_event(const Event& event) {
    switch (event.why) {
        case Event::Why::Segment:
            return on_packet(event.packet, event.length);
        case Event::Why::Icmp:
            return on_icmp(event.packet);
        case Event::Why::TooBig:
            return on_too_big(event);
        case Event::Why::Fragment:
            if (const auto whole = fragments_.add(event.packet, hands_.now())) {
                counters_.mended++;
                on_packet(*whole, whole->size());
            }
    }
}

/// What may be fragmented goes on so; else who has sent it is told (RFC 1191, RFC 8201).
void Relays::on_too_big(const Event& event) {
    if (event.packet.empty()) {
        return;
    }
    if (may_fragment(event.packet) && event.packet.size() == event.length) {
        return on_packet(event.packet, event.length);
    }
    counters_.too_big++;
    hands_.send(too_big_for(event.packet, event.mtu));
}

void Relays::on_packet(View packet, std::size_t length) {
    if (const auto segment = parse_segment(packet, length)) {
        on_segment(*segment);
    } else {
        counters_.malformed++;
    }
}

void Relays::on_segment(const Segment& segment) {
    const auto at = relays_.find(segment.tuple.to);
    if (at == relays_.end()) {
        counters_.no_relay++;
        return reset(segment);
    }
    auto& relay = at->second;
    const bool syn = (segment.flags & flag::kSyn) != 0;
    if (segment.is_msyn() || (!syn && segment.is(Form::Mreq))) {
        on_request(relay, segment);
    } else if (!syn && segment.is(Form::Mans)) {
        on_answer(relay, segment);
    } else if (!syn && segment.is(Form::Confirm)) {
        on_confirm(relay, segment);
    } else if (!syn) {
        on_plain(relay, segment);
    } else {
        counters_.strangers++;
        reset(segment);
    }
}

std::optional<std::size_t> Relays::side_of(const Relay& relay, std::uint32_t token) {
    for (std::size_t side = 0; side < 2; side++) {
        if (relay.ends.at(side).token == token) {
            return side;
        }
    }
    return {};
}

Relays::Candidate* Relays::candidate(End& end, const Endpoint& from) {
    const auto at = std::ranges::find(end.candidates, from, &Candidate::from);
    return at == end.candidates.end() ? nullptr : &*at;
}

Relays::Candidate& Relays::make_candidate(End& end, const Endpoint& from) {
    if (auto* known = candidate(end, from)) {
        return *known;
    }
    if (std::ranges::distance(end.candidates) >= static_cast<std::ptrdiff_t>(kCandidates)) {
        // Of one network, others of it give way. Who has sent a proof stays before who has not,
        // who came late before who did not.
        counters_.crowded++;
        const auto beside = [&](const Candidate& one) {
            const auto network = network_of(one.from.address);
            return std::ranges::count(
                       end.candidates, network,
                       [](const Candidate& other) { return network_of(other.from.address); }) +
                   (network == network_of(from.address) ? 1 : 0);
        };
        const auto last =
            std::ranges::min_element(end.candidates, std::less<>(), [&](const Candidate& one) {
                return std::tuple(-beside(one), one.confirmed, one.seen);
            });
        end.candidates.remove_if([&](const Candidate& one) { return &one == &*last; });
    }
    auto last = end.candidates.before_begin();
    for (auto next = end.candidates.begin(); next != end.candidates.end(); ++next) {
        last = next;
    }
    return *end.candidates.emplace_after(last, Candidate{from, {}, hands_.now(), false, 0, {}});
}

/// An end asks for the other, from wherever it is now.
void Relays::on_request(Relay& relay, const Segment& segment) {
    const auto side = side_of(relay, segment.migrate->token);
    if (!side || segment.migrate->port != relay.ends.at(*side).inner_port) {
        counters_.strangers++;
        return;
    }
    auto& end = relay.ends.at(*side);
    const auto& other = relay.ends.at(1 - *side);
    if (!segment.is_syn() && end.place == segment.tuple.from) {
        // From where it is known to be: what any segment is.
        counters_.requests++;
        end.asked = segment.migrate->reqno;
        return send_to_all(relay, segment, other);
    }
    if (has_gone_before(relay, segment.migrate->reqno)) {
        counters_.replayed++;
        return;
    }
    counters_.requests++;
    auto& candidate = make_candidate(end, segment.tuple.from);
    const bool fresh =
        !candidate.asked.migrate || candidate.asked.migrate->bytes != segment.migrate->bytes;
    candidate.asked = without_data(segment);  // nobody is made to keep that of strangers
    candidate.seen = hands_.now();
    candidate.confirmed = candidate.confirmed && !fresh;
    relay.since = candidate.seen;
    if (segment.is_syn()) {
        splice(relay, *side, candidate, fresh);
    }
    pass_request(relay, *side, segment);
}

bool Relays::has_gone_before(const Relay& relay, std::uint8_t reqno) {
    if (!relay.done) {
        return false;
    }
    const auto since = static_cast<std::int8_t>(reqno - *relay.done);
    return since <= 0 && since >= -kOver;
}

/// The ends share one number.
void Relays::is_done(Relay& relay, std::uint8_t reqno) {
    if (!relay.done || static_cast<std::int8_t>(reqno - *relay.done) > 0) {
        relay.done = reqno;
    }
}

/// A3.2: each gets what the other has asked, as its answer.
void Relays::splice(Relay& relay, std::size_t side, Candidate& candidate, bool fresh) {
    std::set<Octets> told;
    for (const auto& other : relay.ends.at(1 - side).candidates) {
        // Who has sent a proof asks for nothing more.
        if (other.confirmed || !other.asked.is_msyn()) {
            continue;
        }
        if (told.insert(other.asked.migrate->bytes).second) {
            counters_.spliced++;
            hands_.send(
                answer_from(other.asked, candidate.asked.seq, {relay.proxy, candidate.from}));
        }
        if (fresh) {
            counters_.spliced++;
            hands_.send(answer_from(candidate.asked, other.asked.seq, {relay.proxy, other.from}));
        }
    }
}

/// A3.4: to where the other end was last. If it is there it answers itself.
void Relays::pass_request(const Relay& relay, std::size_t side, const Segment& asked) {
    const auto& end = relay.ends.at(side);
    const auto& other = relay.ends.at(1 - side);
    if (!other.place || (asked.is_syn() && asks_itself(other))) {
        return;
    }
    counters_.passed++;
    if (!asked.is_syn()) {
        send_to(relay, asked, *other.place);
    } else if (const auto ack = ack_of(relay, end)) {
        hands_.send(request_from(without_data(asked), *ack, {relay.proxy, *other.place}));
    }
}

/// Two that have left this relay may come back to it, each from where it was: what is spliced is
/// enough for both, and would be confused by another handshake.
bool Relays::asks_itself(const End& end) const {
    return std::ranges::any_of(end.candidates, [&](const Candidate& one) {
        return end.place == one.from && one.asked.is_msyn() && !one.confirmed &&
               hands_.now() - one.seen < kAsking;
    });
}

std::optional<std::uint32_t> Relays::ack_of(const Relay& relay, const End& end) const {
    if (end.place) {
        const auto flow = flows_.get({*end.place, relay.proxy});
        if (flow && flow->ack && (!end.ack || covers(*flow->ack, *end.ack))) {
            return flow->ack;
        }
    }
    return end.ack;
}

/// An end's own answer to what was passed on to it.
void Relays::on_answer(Relay& relay, const Segment& segment) {
    const auto side = side_of(relay, segment.migrate->token);
    if (!side || relay.ends.at(*side).place != segment.tuple.from) {
        counters_.strangers++;
        return;
    }
    auto& end = relay.ends.at(*side);
    end.ack = segment.ack;
    const auto known = journal_.get(relay.proxy);
    const auto options = known ? known->ends.at(*side).syn_options : SynOptions();
    bool answered = false;
    for (const auto& other : relay.ends.at(1 - *side).candidates) {
        // What was asked without SYN is not so exact: its sequence number is one of data.
        const bool its = other.asked.migrate->reqno == segment.migrate->reqno &&
                         (!other.asked.is_syn() || other.asked.seq + 1 == segment.ack);
        if (its && other.asked.is_syn() && asks_itself(end)) {
            answered = true;  // it has that of the other's request already
        } else if (its) {
            const Tuple to{relay.proxy, other.from};
            hands_.send(other.asked.is_syn() ? answer_with_syn(segment, options.bytes(), to)
                                             : readdressed(segment, to));
            answered = true;
        }
    }
    const auto& other = relay.ends.at(1 - *side);
    if (!answered && other.place && other.asked == segment.migrate->reqno) {
        is_done(relay, segment.migrate->reqno);
        send_to(relay, segment, *other.place);
    }
}

/// Candidates whose proof this answer of a joined end may be to.
std::vector<Endpoint> Relays::answered_by(const End& end, const MigrateOption& confirm) {
    std::vector<Endpoint> out;
    for (const auto& one : end.candidates) {
        if (one.confirmed && one.asked.migrate->reqno == confirm.reqno) {
            out.push_back(one.from);
        }
    }
    return out;
}

/// A proof, which only the other end can check.
void Relays::on_confirm(Relay& relay, const Segment& segment) {
    const auto side = side_of(relay, segment.migrate->token);
    if (!side) {
        counters_.strangers++;
        return;
    }
    auto& end = relay.ends.at(*side);
    auto* proves = candidate(end, segment.tuple.from);
    const bool there = end.place == segment.tuple.from;
    if (proves == nullptr && !there) {
        counters_.strangers++;
        return;
    }
    const auto& other = relay.ends.at(1 - *side);
    const auto answered =
        proves == nullptr ? answered_by(other, *segment.migrate) : std::vector<Endpoint>();
    for (const auto& place : answered) {
        send_to(relay, segment, place);
    }
    if (answered.empty()) {
        send_to_all(relay, segment, other);
    }
    if (proves != nullptr) {
        proves->confirmed = true;
        proves->ack = segment.ack;
        proves->tsval = segment.tsval;
        relay.ends.at(1 - *side).echoed = segment.tsecr;
    }
    // Who has asked from where it is, in vain, answers from there as well.
    if ((proves == nullptr || !join_if_ready(relay)) && there) {
        settle(relay, *side, segment);
    }
}

/// Of no flow, or with something that the data path does not know.
void Relays::on_plain(Relay& relay, const Segment& segment) {
    for (std::size_t side = 0; side < 2; side++) {
        auto& end = relay.ends.at(side);
        const auto* from = candidate(end, segment.tuple.from);
        const bool there = end.place == segment.tuple.from;
        if (!there && from == nullptr) {
            continue;
        }
        // A box's reset for what we have sent there says nothing, a host's signed one does. Of a
        // place that is known it goes to the other one, as it would in the kernel.
        const auto& other = relay.ends.at(1 - side);
        const bool boxes = (segment.flags & flag::kRst) != 0 && !segment.is(Form::Rst);
        if (!boxes) {
            send_to_all(relay, segment, other);
        } else if (there && other.place) {
            send_to(relay, segment, *other.place);
        }
        if (there) {
            set_flows(relay);
        } else {
            relay.ends.at(1 - side).echoed = segment.tsecr;
            join_if_ready(relay);
        }
        return;
    }
    counters_.strangers++;
    reset(segment);
}

void Relays::send_to(const Relay& relay, const Segment& segment, const Endpoint& to) {
    if (segment.whole) {
        hands_.send(readdressed(segment, {relay.proxy, to}));
    } else {
        counters_.too_long++;
    }
}

void Relays::send_to_all(const Relay& relay, const Segment& segment, const End& end) {
    std::set<Endpoint> places;
    if (end.place) {
        places.insert(*end.place);
    }
    for (const auto& one : end.candidates) {
        places.insert(one.from);
    }
    for (const auto& place : places) {
        send_to(relay, segment, place);
    }
}

void Relays::reset(const Segment& segment) {
    const auto out = reset_for(segment);
    auto paced = reset_pace_;  // what gets none costs nothing
    if (out && paced.step(kResets, hands_.now()) == Duration::zero()) {
        reset_pace_ = paced;
        counters_.resets++;
        hands_.send(*out);
    }
}

/// A router's word about what was sent on: for who has sent it (RFC 1191, RFC 8201).
void Relays::on_icmp(View packet) {
    const auto error = parse_icmp_error(packet);
    const auto at = error ? relays_.find(error->quoted.from) : relays_.end();
    if (at == relays_.end() || error->mtu == 0) {
        counters_.icmp_alien++;
        return;
    }
    const auto& ends = at->second.ends;
    for (std::size_t side = 0; side < 2; side++) {
        const auto& sender = ends.at(1 - side).place;
        if (ends.at(side).place == error->quoted.to && sender) {
            counters_.icmp++;
            return hands_.send(translated(*error, {*sender, at->first}));
        }
    }
    counters_.icmp_alien++;
}

// ---- Ends ----

/// Who has sent a proof as this end; of several, whom the other end echoes (RFC 7323): it does
/// so only with what it has accepted.
const Relays::Candidate* Relays::proved(const End& end) {
    const Candidate* found = nullptr;
    std::size_t count = 0;
    for (const auto& one : end.candidates) {
        if (!one.confirmed) {
            continue;
        }
        count++;
        if (found == nullptr || (one.tsval && one.tsval == end.echoed)) {
            found = &one;
        }
    }
    const bool sure =
        count == 1 || (found != nullptr && found->tsval && found->tsval == end.echoed);
    return sure ? found : nullptr;
}

bool Relays::join_if_ready(Relay& relay) {
    const auto* first = proved(relay.ends[0]);
    const auto* second = proved(relay.ends[1]);
    if (first == nullptr || second == nullptr || is_alive(relay)) {
        return false;
    }
    const std::array winners{*first, *second};
    move_to(relay, 0, winners[0]);
    move_to(relay, 1, winners[1]);
    set_flows(relay);
    counters_.joined++;
    log_->debug("event=joined port={} ends={},{}", text(relay.proxy), text(winners[0].from),
                text(winners[1].from));
    tell_met(relay);
    return true;
}

bool Relays::is_alive(const Relay& relay) const {
    return std::ranges::any_of(relay.ends, [&](const End& end) {
        const auto flow = end.place ? flows_.get({*end.place, relay.proxy}) : std::nullopt;
        return flow && std::chrono::nanoseconds(flow->idle_ns) < kQuiet;
    });
}

void Relays::settle(Relay& relay, std::size_t side, const Segment& confirm) {
    const Candidate* winner = nullptr;
    for (const auto& one : relay.ends.at(1 - side).candidates) {
        if (!one.confirmed || one.asked.migrate->reqno != confirm.migrate->reqno) {
            continue;
        }
        // Of several, who the answering end echoes (RFC 7323).
        const bool echoed = one.tsval && one.tsval == confirm.tsecr;
        if (winner == nullptr || echoed) {
            winner = &one;
        }
    }
    if (winner != nullptr) {
        const auto chosen = *winner;
        move_to(relay, 1 - side, chosen);
        set_flows(relay);
        counters_.moved++;
        log_->debug("event=moved port={} end={}", text(relay.proxy), text(chosen.from));
        tell_met(relay);
    }
}

void Relays::move_to(Relay& relay, std::size_t side, const Candidate& winner) {
    auto& end = relay.ends.at(side);
    // Where the other end is, too, nobody has left.
    if (end.place && end.place != winner.from && end.place != relay.ends.at(1 - side).place) {
        retire({*end.place, relay.proxy});
    }
    if (retired_.erase({relay.proxy, winner.from}) != 0) {
        static_cast<void>(flows_.remove({winner.from, relay.proxy}));  // back again: made anew
    }
    end.place = winner.from;
    end.ack = winner.ack;
    is_done(relay, winner.asked.migrate->reqno);
    record(relay, side, [&](RecordedEnd& known) {
        known.place = winner.from;
        if (winner.asked.is_syn()) {
            known.syn_options = SynOptions(syn_options(winner.asked));
        }
    });
    end.candidates.remove_if(
        [from = winner.from](const Candidate& one) { return one.from == from; });
}

void Relays::set_flows(Relay& relay) {
    const auto& first = relay.ends[0].place;
    const auto& second = relay.ends[1].place;
    if (!first || !second) {
        return;
    }
    for (const auto& [from, to] : {std::pair(*first, *second), std::pair(*second, *first)}) {
        const Tuple in{from, relay.proxy};
        const Tuple out{relay.proxy, to};
        const auto there = flows_.get(in);
        if (there && there->out == out) {
            continue;
        }
        if (const auto set = flows_.set(in, out, relay.proxy.port()); !set) {
            counters_.failed++;
            log_->error("event=flow-failed port={} error=\"{}\"", text(relay.proxy),
                        set.error().message);
        }
    }
}

/// What is still under way from there shall arrive.
void Relays::retire(const Tuple& in) {
    const auto flow = flows_.get(in);
    if (!flow) {
        return;
    }
    static_cast<void>(flows_.set(in, flow->out, flow->relay, true));
    retired_[{in.to, in.from}] = hands_.now() + kLinger;
    const auto [first, last] = left_at(in.to);
    if (std::distance(first, last) > static_cast<std::ptrdiff_t>(kLeft)) {
        const auto idle = [this](const auto& entry) {
            const auto seen = flows_.get(tuple_of(entry));
            return seen ? seen->idle_ns : UINT64_MAX;
        };
        const auto quiet = std::max_element(
            first, last, [&](const auto& a, const auto& b) { return idle(a) < idle(b); });
        static_cast<void>(flows_.remove(tuple_of(*quiet)));
        retired_.erase(quiet);
    }
}

Tuple Relays::tuple_of(const Retired::value_type& entry) {
    return {entry.first.second, entry.first.first};
}

std::pair<Relays::Retired::const_iterator, Relays::Retired::const_iterator> Relays::left_at(
    const Place& proxy) const {
    const auto begin = retired_.lower_bound({proxy, Place()});
    const auto end = std::find_if(begin, retired_.end(),
                                  [&](const auto& entry) { return entry.first.first != proxy; });
    return {begin, end};
}

void Relays::record(const Relay& relay, std::size_t side,
                    const std::function<void(RecordedEnd&)>& change) {
    if (auto known = journal_.get(relay.proxy)) {
        change(known->ends.at(side));
        put(*known);
    } else {
        counters_.failed++;
        log_->error("event=record-lost port={}", text(relay.proxy));
    }
}

bool Relays::put(const Record& record) {
    const auto done = journal_.put(record);
    if (!done) {
        counters_.failed++;
        log_->error("event=record-failed port={} error=\"{}\"", text(record.proxy),
                    done.error().message);
    }
    return static_cast<bool>(done);
}

void Relays::count_hosts() {
    of_host_.clear();
    for (const auto& known : journal_.all()) {
        for (const auto& end : known.ends) {
            of_host_[end.host]++;
        }
    }
}

// ---- Time ----

bool Relays::is_over(Relay& relay, Time now) {
    for (auto& end : relay.ends) {
        end.candidates.remove_if(
            [&](const Candidate& one) { return now - one.seen > kCandidateLife; });
    }
    const auto flow = [&](const End& end) {
        return end.place ? flows_.get({*end.place, relay.proxy}) : std::nullopt;
    };
    const auto first = flow(relay.ends[0]);
    const auto second = flow(relay.ends[1]);
    if (!first || !second) {
        return now - relay.since > limits_.reserved;
    }
    auto idle = std::chrono::nanoseconds(std::min(first->idle_ns, second->idle_ns));
    // Who was taken for an end may have ended it; the end is where it was.
    const auto [begin, end] = left_at(relay.proxy);
    for (auto entry = begin; entry != end; ++entry) {
        if (const auto left = flows_.get(tuple_of(*entry))) {
            idle = std::min(idle, std::chrono::nanoseconds(left->idle_ns));
        }
    }
    const bool closed = (is_acknowledged(*first, *second) && is_acknowledged(*second, *first)) ||
                        first->rst || second->rst;
    return now - relay.since > kLinger && (closed ? idle > kLinger : idle > limits_.idle);
}

void Relays::sweep() {
    const auto now = hands_.now();
    fragments_.expire(now);
    // One flow after the other: all of them at once would be more memory than all else.
    for (auto at = retired_.begin(); at != retired_.end();) {
        // Somebody who is there all the same: who took its place could do so for a moment.
        const auto flow = flows_.get(tuple_of(*at));
        const bool used = flow && std::chrono::nanoseconds(flow->idle_ns) < kLinger / 2 &&
                          relays_.contains(at->first.first);
        if (at->second > now || used) {
            ++at;
            continue;
        }
        static_cast<void>(flows_.remove(tuple_of(*at)));
        at = retired_.erase(at);
    }
    std::vector<Endpoint> over;
    for (auto& [proxy, relay] : relays_) {
        if (is_over(relay, now)) {
            over.push_back(proxy);
        }
    }
    for (const auto& proxy : over) {
        end(relays_.at(proxy));
    }
}

void Relays::end(Relay& relay) {
    release_hosts(relay.proxy);  // first: who is killed here shall not make its flows anew
    bool closed = false;
    for (const auto& end : relay.ends) {
        if (end.place) {
            const Tuple in{*end.place, relay.proxy};
            const auto flow = flows_.get(in);
            closed = closed || (flow && (flow->fin_end || flow->rst));
            static_cast<void>(flows_.remove(in));
        }
    }
    const auto [begin, end] = left_at(relay.proxy);
    for (auto entry = begin; entry != end; ++entry) {
        static_cast<void>(flows_.remove(tuple_of(*entry)));
    }
    retired_.erase(begin, end);
    (closed ? counters_.finished : counters_.expired)++;
    log_->debug("event=ended port={} why={}", text(relay.proxy), closed ? "closed" : "idle");
    by_tokens_.erase(std::minmax(relay.ends[0].token, relay.ends[1].token));
    const auto proxy = relay.proxy;
    relays_.erase(proxy);
}

/// And what is recorded of it.
void Relays::release_hosts(const Endpoint& proxy) {
    const auto known = journal_.get(proxy);
    journal_.remove(proxy);
    if (!known) {
        return count_hosts();
    }
    for (const auto& end : known->ends) {
        const auto at = of_host_.find(end.host);
        if (--at->second == 0) {
            of_host_.erase(at);
        }
    }
}

Load Relays::load() const {
    return {static_cast<std::uint32_t>(relays_.size()), static_cast<std::uint32_t>(limits_.most)};
}

std::vector<Relays::Seen> Relays::seen() const {
    std::vector<Seen> out;
    auto records = journal_.all();
    std::ranges::sort(records, {}, &Record::proxy);
    for (const auto& record : records) {
        auto& one = out.emplace_back(Seen{record, false, {}});
        for (std::size_t side = 0; side < 2; side++) {
            const auto& place = record.ends.at(side).place;
            one.flows.at(side) = place ? flows_.get({*place, record.proxy}) : std::nullopt;
        }
        one.joined = one.flows[0] && one.flows[1];
    }
    return out;
}

}  // namespace mobility::proxy
