// SPDX-License-Identifier: GPL-2.0-or-later
#include "metrics.hpp"

#include <array>
#include <tuple>

#include "libmobility/metrics.hpp"
#include "libmobility/settings.hpp"

namespace mobility::server {

namespace {

void add_service(MetricsText& text, const Service& service) {
    const auto& c = service.counters();
    text.gauge("mobility_server_channels", "Channels of admitted hosts.", service.channels());
    text.gauge("mobility_server_strangers", "Connected and not admitted yet.", service.strangers());
    text.counter("mobility_server_accepted_total", "Connections accepted.", c.accepted);
    text.counter("mobility_server_accept_errors_total", "Connections that could not be accepted.",
                 c.accept_errors);
    text.counter("mobility_server_joined_total", "Channels of hosts that were admitted.", c.joined);
    text.counter("mobility_server_vouchers_total", "Vouchers given to hosts.", c.vouched);
    text.counter("mobility_server_no_vouchers_total",
                 "Hosts that wanted a voucher, and that the server does not vouch for.",
                 c.not_vouched);
    text.counter("mobility_server_crowded_total", "Closed at once: too many of one address.",
                 c.crowded);
    text.counter("mobility_server_pushed_out_total", "Strangers ended by newer ones.",
                 c.pushed_out);
    text.counter("mobility_server_introduction_failed_total", "TLS or Hello bad, or too late.",
                 c.introduction_failed);
    text.counter("mobility_server_replaced_total", "Channels ended by newer ones of the same host.",
                 c.replaced);
    text.counter("mobility_server_slow_total", "Channels ended for not taking what was sent.",
                 c.slow);
    text.counter("mobility_server_throttled_total", "Waits of hosts that say too much.",
                 c.throttled);
    text.counter("mobility_server_messages_received_total", "Messages of hosts.", c.received);
    text.counter("mobility_server_messages_sent_total", "Messages to hosts.", c.sent);
    static constexpr std::array kWhy = {"no-reason", "version",   "not-admitted", "too-much",
                                        "busy",      "malformed", "not-yours"};
    static_assert(kWhy.size() == std::tuple_size_v<decltype(c.refused)>);
    const char* refused = "mobility_server_refused_total";
    text.head(refused, "counter", "Refusals of channels and of messages.");
    for (std::size_t why = 1; why < kWhy.size(); why++) {
        text.labelled(refused, "why", kWhy.at(why), c.refused.at(why));
    }
}

void add_exchange(MetricsText& text, const Exchange& exchange) {
    const auto& c = exchange.counters();
    text.gauge("mobility_server_pairs", "Pairs of hosts that are remembered.", exchange.pairs());
    text.counter("mobility_server_reports_total", "Reports taken.", c.reports);
    text.counter("mobility_server_judgements_total", "Pairs judged.", c.judgements);
    text.counter("mobility_server_notices_total", "Hosts told where their peer is.", c.notices);
    text.counter("mobility_server_resumed_total", "Pairs that have resumed when told.", c.resumed);
    text.counter("mobility_server_relayed_total", "Pairs that have resumed through a proxy.",
                 c.relayed);
    text.counter("mobility_server_crossings_total",
                 "Times that relayed pairs were told to try without the proxy.", c.crossings);
    text.counter("mobility_server_crossed_total", "... and go on without it.", c.crossed);
    text.counter("mobility_server_orders_total", "Relays wanted for a pair.", c.orders);
    text.counter("mobility_server_verdicts_total", "Pairs told that nothing more can be done.",
                 c.verdicts);
}

void add_orders(MetricsText& text, const Orders& orders) {
    const auto& c = orders.counters();
    text.gauge("mobility_server_orders_out", "Orders that wait for a proxy's answer.",
               orders.out());
    text.counter("mobility_server_proxy_orders_total", "Orders that proxies were given.",
                 c.ordered);
    text.counter("mobility_server_proxy_reserved_total",
                 "Orders for which proxies have reserved ports.", c.reserved);
    const char* declined = "mobility_server_proxy_declined_total";
    text.head(declined, "counter", "Orders that proxies have declined.");
    for (std::size_t why = 0; why < c.declined.size(); why++) {
        text.labelled(declined, "why", std::string(to_string(static_cast<Declined::Why>(why))),
                      c.declined.at(why));
    }
    text.counter("mobility_server_proxy_unanswered_total",
                 "Orders that proxies have not answered in time.", c.unanswered);
    text.counter("mobility_server_proxy_bad_total", "Answers of proxies that cannot be.", c.bad);
    text.counter("mobility_server_proxy_late_total", "Answers for which nobody waited.", c.late);
    text.counter("mobility_server_orders_crowded_total", "Relays wanted that were one too many.",
                 c.crowded);
    text.counter("mobility_server_orders_failed_total", "Relays wanted that no proxy took.",
                 c.failed);
}

void add_proxies(MetricsText& text, const Proxies& proxies) {
    const auto& c = proxies.counters();
    text.counter("mobility_server_proxy_ready_total", "Channels to proxies that became ready.",
                 c.ready);
    text.counter("mobility_server_proxy_failed_total", "Channels to proxies that did not.",
                 c.failed);
    text.counter("mobility_server_proxy_ended_total", "Channels to proxies that ended.", c.ended);
    const auto each = [&](const char* name, const char* help, auto value) {
        text.head(name, "gauge", help);
        for (const auto& seen : proxies.seen()) {
            text.labelled(name, "proxy", to_text(seen.place.address), value(seen));
        }
    };
    each("mobility_server_proxy_up", "Can it be given orders?",
         [](const Proxies::Seen& seen) -> std::uint64_t { return seen.ready ? 1 : 0; });
    each("mobility_server_proxy_relays", "How much it relays, as far as is known.",
         [](const Proxies::Seen& seen) -> std::uint64_t { return seen.load.relays; });
    each("mobility_server_proxy_most", "How much it can relay.",
         [](const Proxies::Seen& seen) -> std::uint64_t { return seen.load.most; });
}

}  // namespace

std::string metrics_text(const Service& service, const Proxies* proxies) {
    MetricsText text;
    add_service(text, service);
    add_exchange(text, service.exchange());
    if (proxies != nullptr) {
        add_orders(text, proxies->orders());
        add_proxies(text, *proxies);
    }
    return text.take();
}

}  // namespace mobility::server
