// SPDX-License-Identifier: GPL-2.0-or-later
#include "watch/decide.hpp"

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <tuple>

#include "watch/source.hpp"

namespace mobility::watch {

namespace {

/// What one use has to do with one view.
class Seen {
  public:
    Seen(const View& view, const Use& use) : view_(view), use_(use) {}

    [[nodiscard]] bool works(const Place& place) const {
        const bool fits = use_.bound == 0 || use_.bound == place.index;
        return fits && view_.works(place, use_.remote, use_.bound != 0);
    }

    /// The place in use, if it works.
    [[nodiscard]] const Place* here() const { return working(use_.local); }
    /// Where a move goes to, if that works.
    [[nodiscard]] const Place* target() const {
        return use_.under_way ? working(use_.under_way->to) : nullptr;
    }
    /// The place in use, if it may work again soon.
    [[nodiscard]] const Place* held() const {
        const auto found = std::ranges::find_if(
            view_.places, [this](const Place& p) { return p.address == use_.local && p.held; });
        return found == view_.places.end() ? nullptr : &*found;
    }
    [[nodiscard]] bool has(const Address& address) const {
        return std::ranges::any_of(
            view_.places, [&](const Place& p) { return p.address == address && p.present; });
    }
    [[nodiscard]] bool leaves_alone(const Address& address) const {
        return std::ranges::find(view_.others, address) != view_.others.end();
    }

    /// Can a connection go there?
    [[nodiscard]] bool is_open(const Place& place) const {
        return !place.tentative && place.address != use_.local && works(place);
    }
    /// The best place to go to.
    [[nodiscard]] const Place* best() const {
        const Place* best = nullptr;
        for (const auto& place : view_.places) {
            if (is_open(place) && (best == nullptr || comes_before(place, *best))) {
                best = &place;
            }
        }
        return best;
    }
    /// Does a new connection to this peer leave there rather than here?
    [[nodiscard]] bool better(const Place& there, const Place& here) const {
        return !there.deprecated && merit(there) < merit(here);
    }
    /// The place in this view that is that one in another.
    [[nodiscard]] const Place* counterpart(const Place* other) const {
        return other == nullptr ? nullptr : view_.find(other->address, other->index);
    }

  private:
    [[nodiscard]] const Place* working(const Address& address) const {
        const auto found = std::ranges::find_if(
            view_.places, [&](const Place& p) { return p.address == address && works(p); });
        return found == view_.places.end() ? nullptr : &*found;
    }

    /// The route that a new connection by this interface takes.
    [[nodiscard]] const Route* route(const Place& place) const {
        const Query query{.v6 = use_.remote.is_v6(), .to = use_.remote, .bound = true};
        return view_.routing.find(query, place.index);
    }

    /// Of the interface; lower is better.
    [[nodiscard]] std::tuple<int, bool, int, std::uint32_t, int> merit(const Place& place) const {
        const auto* by = route(place);
        if (by == nullptr) {
            return {place.rank, true, 0, 0, 0};
        }
        return {place.rank, false, -by->to.length, by->metric, -by->preference};
    }

    [[nodiscard]] bool comes_before(const Place& a, const Place& b) const {
        const auto merit_a = std::tuple(a.deprecated, merit(a));
        const auto merit_b = std::tuple(b.deprecated, merit(b));
        if (merit_a != merit_b) {
            return merit_a < merit_b;
        }
        const Query query{.v6 = a.address.is_v6(),
                          .from = a.address,
                          .to = use_.remote,
                          .bound = use_.bound != 0};
        const auto* by = a.index == b.index ? view_.routing.find(query, a.index) : nullptr;
        return by != nullptr && better_source(a, b, use_.remote, *by);
    }

    const View& view_;
    const Use& use_;
};

class Decision {
  public:
    Decision(const View& before, const View& after, const Use& use, const Policy& policy)
        : view_before_(before),
          view_after_(after),
          before_(before, use),
          after_(after, use),
          use_(use),
          policy_(policy),
          here_(after_.here()),
          best_(after_.best()) {}

    [[nodiscard]] Move make() const {
        if (not_ours()) {
            return stay(Move::Why::NotOurs);
        }
        if (const auto decided = under_way()) {
            return *decided;
        }
        return here_ != nullptr ? in_place() : without_place();
    }

  private:
    static Move stay(Move::Why why) { return {.why = why}; }
    static Move move(const Place& to, Move::Why why, bool trial) {
        return {.what = Move::What::Move,
                .why = why,
                .to = to.address,
                .index = to.index,
                .trial = trial};
    }

    [[nodiscard]] bool not_ours() const {
        const auto this_host = [this](const Seen& seen) {
            return seen.has(use_.remote) || seen.leaves_alone(use_.remote);
        };
        const bool alone = !after_.has(use_.local) &&
                           (after_.leaves_alone(use_.local) || before_.leaves_alone(use_.local));
        return is_confined(use_.local) || alone || this_host(after_) || this_host(before_);
    }

    [[nodiscard]] std::optional<Move> under_way() const {
        if (!use_.under_way) {
            return {};
        }
        if (const auto* target = after_.target()) {
            // A trial keeps the old path until two round trips are over; without an old path
            // one is enough.
            const bool harden =
                use_.under_way->trial && here_ == nullptr && after_.held() == nullptr;
            return harden ? move(*target, Move::Why::Lost, false) : stay(Move::Why::UnderWay);
        }
        // A plain move has stopped the old path: without a target it has to be taken again.
        if (!use_.under_way->trial && here_ != nullptr) {
            return move(*here_, Move::Why::Back, false);
        }
        return {};
    }

    /// Does a view make it leave a place that works for the best one of now?
    [[nodiscard]] std::optional<Move::Why> leaves(const Seen& seen) const {
        const auto* here = seen.counterpart(here_);
        const auto* best = seen.counterpart(best_);
        if (here == nullptr || best == nullptr || !seen.works(*here) || !seen.is_open(*best)) {
            return {};
        }
        if (policy_.better == Policy::Better::Trial && seen.better(*best, *here)) {
            return Move::Why::Better;
        }
        if (policy_.leave_deprecated && here->deprecated && !best->deprecated) {
            return Move::Why::Deprecated;
        }
        return {};
    }

    [[nodiscard]] Move in_place() const {
        const auto why = leaves(after_);
        if (why && !leaves(before_)) {
            return move(*best_, *why, true);
        }
        const bool given_up = view_before_.known && before_.here() == nullptr &&
                              before_.held() == nullptr && !before_.leaves_alone(use_.local);
        return given_up ? move(*here_, Move::Why::Back, false) : stay(Move::Why::Works);
    }

    /// Is there a place to go to now, although the old one may work again soon? One that
    /// has just come is no return to what was left before; one of the same interface is
    /// what takes the old one's place.
    [[nodiscard]] bool worth_going() const {
        const auto* was = before_.counterpart(best_);
        const bool just_come = was == nullptr || !before_.is_open(*was);
        return best_ != nullptr && (just_come || best_->index == after_.held()->index);
    }

    [[nodiscard]] Move without_place() const {
        if (after_.held() != nullptr && !worth_going()) {
            const auto what = after_.held()->present ? Move::What::Stay : Move::What::Wait;
            return {.what = what, .why = Move::Why::Held};
        }
        if (best_ != nullptr) {
            return move(*best_, Move::Why::Lost, false);
        }
        const bool other_family = view_after_.leads_out(!use_.local.is_v6());
        return {.what = other_family ? Move::What::NotNative : Move::What::Wait,
                .why = Move::Why::Lost};
    }

    const View& view_before_;
    const View& view_after_;
    Seen before_;
    Seen after_;
    const Use& use_;
    const Policy& policy_;
    const Place* here_;
    const Place* best_;
};

tcpmigrate::MigrateAllRequest request(const Address& local, const Move& move) {
    tcpmigrate::MigrateAllRequest made;
    made.old_local = local;
    made.new_local = move.to;
    made.if_index = move.index;
    made.trial = move.trial;
    return made;
}

}  // namespace

std::string_view to_string(Move::What what) {
    constexpr std::array<std::string_view, 4> names{"stay", "move", "wait", "not-native"};
    return names.at(static_cast<std::size_t>(what));
}

std::string_view to_string(Move::Why why) {
    constexpr std::array<std::string_view, 8> names{"not-ours", "works",      "held", "under-way",
                                                    "better",   "deprecated", "back", "lost"};
    return names.at(static_cast<std::size_t>(why));
}

std::vector<Use> uses_of(std::span<const tcpmigrate::Connection> connections,
                         const std::set<std::uint64_t>& trials) {
    std::set<Use> uses;
    for (const auto& connection : connections) {
        Use use{.local = connection.local.address,
                .remote = connection.remote.address,
                .bound = connection.if_index};
        // To the same address it is a path that is being proved again: no move.
        const auto& to = connection.new_local.address;
        if (to && *to != use.local) {
            use.under_way = Use::UnderWay{*to, trials.contains(connection.cookie)};
        }
        uses.insert(use);
    }
    return {uses.begin(), uses.end()};
}

std::vector<Move> decide(const View& before, const View& after, std::span<const Use> uses,
                         const Policy& policy) {
    std::vector<Move> moves;
    moves.reserve(uses.size());
    for (const auto& use : uses) {
        moves.push_back(Decision(before, after, use, policy).make());
    }
    return moves;
}

std::vector<tcpmigrate::MigrateAllRequest> requests(std::span<const Use> uses,
                                                    std::span<const Move> moves) {
    std::map<Address, std::vector<std::size_t>> by_local;
    for (std::size_t i = 0; i < uses.size(); i++) {
        by_local[uses[i].local].push_back(i);
    }
    std::vector<tcpmigrate::MigrateAllRequest> made;
    for (const auto& [local, indices] : by_local) {
        const auto& first = moves[indices.front()];
        const bool alike = std::ranges::all_of(indices, [&](auto i) { return moves[i] == first; });
        if (alike && first.what == Move::What::Move) {
            made.push_back(request(local, first));
            continue;
        }
        std::set<Address> done;
        for (const auto i : indices) {
            if (moves[i].what == Move::What::Move && done.insert(uses[i].remote).second) {
                made.push_back(request(local, moves[i]));
                made.back().remote = uses[i].remote;
            }
        }
    }
    return made;
}

}  // namespace mobility::watch
