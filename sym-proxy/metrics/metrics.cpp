// SPDX-License-Identifier: GPL-2.0-or-later
#include "metrics.hpp"

#include <spdlog/fmt/fmt.h>

#include <nlohmann/json.hpp>

#include "datapath/flow.h"
#include "libmobility/metrics.hpp"
#include "libmobility/settings.hpp"

namespace mobility::proxy {

namespace {

constexpr std::uint64_t kSecond = 1'000'000'000;

void add_relays(MetricsText& text, const Relays& relays) {
    const auto& c = relays.counters();
    const auto load = relays.load();
    text.gauge("sym_proxy_relays", "Connections that have a port.", load.relays);
    text.gauge("sym_proxy_relays_most", "... at most.", load.most);
    text.counter("sym_proxy_orders_total", "Orders of servers.", c.orders);
    text.counter("sym_proxy_reserved_total", "Ports reserved.", c.reserved);
    text.counter("sym_proxy_renewed_total", "Ports ordered again.", c.renewed);
    const char* declined = "sym_proxy_declined_total";
    text.head(declined, "counter", "Orders that were declined.");
    for (std::size_t why = 1; why < c.declined.size(); why++) {
        text.labelled(declined, "why", std::string(to_string(static_cast<Declined::Why>(why))),
                      c.declined.at(why));
    }
    text.counter("sym_proxy_requests_total", "MSYNs, and requests without SYN.", c.requests);
    text.counter("sym_proxy_spliced_total", "Answers made from the other end's MSYN.", c.spliced);
    text.counter("sym_proxy_passed_total", "Requests passed to an end that was joined.", c.passed);
    text.counter("sym_proxy_joined_total", "Connections joined.", c.joined);
    text.counter("sym_proxy_moved_total", "Ends that have moved while relayed.", c.moved);
    text.counter("sym_proxy_replayed_total", "Requests that were answered already.", c.replayed);
    text.counter("sym_proxy_crowded_total", "Candidates that gave way to others.", c.crowded);
    text.counter("sym_proxy_finished_total", "Relays ended by FINs or RST.", c.finished);
    text.counter("sym_proxy_expired_total", "Relays ended by time.", c.expired);
    text.counter("sym_proxy_no_relay_total", "Segments to a port that is not reserved.",
                 c.no_relay);
    text.counter("sym_proxy_strangers_total", "Segments from no end of the relay.", c.strangers);
    text.counter("sym_proxy_malformed_total", "Packets that are no segments.", c.malformed);
    text.counter("sym_proxy_too_long_total", "Segments that were not handed up whole.", c.too_long);
    text.counter("sym_proxy_resets_total", "Resets sent.", c.resets);
    text.counter("sym_proxy_icmp_total", "ICMP errors translated.", c.icmp);
    text.counter("sym_proxy_icmp_alien_total", "ICMP errors about nothing that is relayed.",
                 c.icmp_alien);
    text.counter("sym_proxy_too_big_total", "Segments that do not fit on their way out.",
                 c.too_big);
    text.counter("sym_proxy_mended_total", "Segments put together from fragments.", c.mended);
    text.counter("sym_proxy_fragments_lost_total", "Packets that fragments were missing of.",
                 relays.fragments().lost());
    text.counter("sym_proxy_failed_total", "Flows or records that the kernel did not take.",
                 c.failed);
}

void add_flows(MetricsText& text, const DataPath& flows) {
    static constexpr std::array<const char*, FLOW_COUNTERS> kNames{
        "relayed", "to_user", "lost", "malformed", "fragments", "no_route", "ttl", "too_big",
    };
    const auto counters = flows.counters();
    const char* name = "sym_proxy_packets_total";
    text.head(name, "counter", "Packets in the data path.");
    for (std::size_t i = 0; i < kNames.size() && i < counters.size(); i++) {
        text.labelled(name, "what", kNames.at(i), counters[i]);
    }
}

void add_service(MetricsText& text, const Service& service, const Packets& packets) {
    const auto& c = service.counters();
    text.gauge("sym_proxy_servers", "Channels of servers.", service.channels());
    text.counter("sym_proxy_accepted_total", "TCP connections accepted.", c.accepted);
    text.counter("sym_proxy_servers_joined_total", "Servers that were admitted.", c.joined);
    text.counter("sym_proxy_not_admitted_total", "Servers that are not listed.", c.not_admitted);
    text.counter("sym_proxy_crowded_connections_total", "Closed at once: too many strangers.",
                 c.crowded);
    text.counter("sym_proxy_introduction_failed_total", "TLS or Greeting bad, or too late.",
                 c.introduction_failed);
    text.counter("sym_proxy_malformed_messages_total", "Messages that are none.", c.malformed);
    text.counter("sym_proxy_throttled_total", "Waits of servers that order too fast.", c.throttled);
    text.counter("sym_proxy_slow_total", "Channels ended for not taking what was sent.", c.slow);
    text.counter("sym_proxy_unsent_total", "Packets that could not be sent.", packets.unsent());
}

std::string place(const std::optional<Endpoint>& endpoint) {
    return endpoint ? to_text({endpoint->address, endpoint->port}) : "-";
}

nlohmann::json json_of(const Relays::Seen& relay) {
    auto ends = nlohmann::json::array();
    for (std::size_t side = 0; side < 2; side++) {
        const auto& end = relay.record.ends.at(side);
        nlohmann::json one{{"host", end.host.to_string()},
                           {"inner", place(end.inner)},
                           {"seen", end.place ? nlohmann::json(place(end.place)) : nullptr}};
        if (const auto& flow = relay.flows.at(side)) {
            one["packets"] = flow->packets;
            one["bytes"] = flow->bytes;
            one["idle-seconds"] = flow->idle_ns / kSecond;
            one["ack"] = flow->ack ? nlohmann::json(*flow->ack) : nullptr;
            one["fin"] = flow->fin_end.has_value();
            one["rst"] = flow->rst;
        }
        ends.push_back(std::move(one));
    }
    return {{"at", place(relay.record.proxy)}, {"joined", relay.joined}, {"ends", ends}};
}

std::string line_of(const Relays::Seen& relay) {
    std::string out = fmt::format("{:<24} {:<8}", place(relay.record.proxy),
                                  relay.joined ? "joined" : "reserved");
    for (std::size_t side = 0; side < 2; side++) {
        const auto& flow = relay.flows.at(side);
        out += fmt::format(" {:<24} {:>12} B", place(relay.record.ends.at(side).place),
                           flow ? flow->bytes : 0);
    }
    return out + "\n";
}

}  // namespace

std::string metrics_text(const Relays& relays, const Service& service, const DataPath& flows,
                         const Packets& packets) {
    MetricsText text;
    add_relays(text, relays);
    add_flows(text, flows);
    add_service(text, service, packets);
    return text.take();
}

std::string relays_text(const std::vector<Relays::Seen>& relays, bool json) {
    if (json) {
        auto out = nlohmann::json::array();
        for (const auto& relay : relays) {
            out.push_back(json_of(relay));
        }
        return out.dump(2) + "\n";
    }
    std::string out = fmt::format("{:<24} {:<8} {:<24} {:>14} {:<24} {:>14}\n", "AT", "STATE",
                                  "ONE END", "SENT", "THE OTHER", "SENT");
    for (const auto& relay : relays) {
        out += line_of(relay);
    }
    return out;
}

}  // namespace mobility::proxy
