// SPDX-License-Identifier: GPL-2.0-or-later
// Feeds arbitrary bytes to the decoder of rtnetlink messages, and what it makes of them to
// all that is decided by them. Where a connection is told to go has to be a place that works.

#include <cstdint>
#include <cstdlib>
#include <span>

#include "watch/decide.hpp"
#include "watch/decode.hpp"

namespace {

using namespace mobility::watch;

/// Connections of every address that has been there, to a peer far away and a near one.
std::vector<Use> uses_of_all(const HostState& state) {
    std::vector<Use> uses;
    for (const auto& address : state.addresses()) {
        const char* far = address.ip.is_v6() ? "2001:db8:ffff::1" : "203.0.113.5";
        uses.push_back({.local = address.ip, .remote = *Address::parse(far)});
        if (!state.routing().routes().empty()) {
            uses.push_back({.local = address.ip,
                            .remote = state.routing().routes().back().to.address,
                            .bound = address.index});
        }
    }
    return uses;
}

void check(const View& before, const View& after, const std::vector<Use>& uses) {
    const auto moves = decide(before, after, uses, {});
    for (std::size_t i = 0; i < moves.size(); i++) {
        if (moves[i].what != Move::What::Move) {
            continue;
        }
        const auto* place = after.find(moves[i].to, moves[i].index);
        if (place == nullptr || !after.works(*place, uses[i].remote, uses[i].bound != 0)) {
            std::abort();
        }
    }
    static_cast<void>(requests(uses, moves));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    // A host to begin with: a cable, and a Wi-Fi behind it.
    HostState state;
    for (unsigned index = 3; index <= 4; index++) {
        const auto ip = *Address::parse(index == 3 ? "192.0.2.10" : "2001:db8::10");
        static_cast<void>(
            state.apply({Change::How::Set, Link{.index = index, .up = true, .running = true}}));
        static_cast<void>(state.apply({Change::How::Set, HostAddress{.ip = ip, .index = index}}));
        static_cast<void>(state.apply({Change::How::Set, Route{.v6 = ip.is_v6(), .index = index}}));
    }
    const Config config;
    const auto before = make_view(state, config, {}, {});
    auto uses = uses_of_all(state);
    for (const auto& change : decode(std::as_bytes(std::span(data, size)), 0).changes) {
        static_cast<void>(state.apply(change));
    }
    const auto more = uses_of_all(state);
    uses.insert(uses.end(), more.begin(), more.end());
    const auto after = make_view(state, config, before, Time(std::chrono::seconds(1)));
    check(before, after, uses);
    check({}, after, uses);
    check(after, make_view(state, config, after, Time(std::chrono::seconds(2))), uses);
    static_cast<void>(gained(before, after));
    return 0;
}
