// SPDX-License-Identifier: GPL-2.0-or-later
// What connections are to do when the view has changed from one to another. Pure.
//
// In this order, for each address in use and its peer:
//
//   the address is none of ours, or the peer is this host   stay
//   a move is under way, to a place that works               stay; a trial whose old place has
//                                                            gone becomes a plain move
//   the address works                                        stay, or a trial of a better place
//                                                            that has just come; if it had been
//                                                            given up: prove the path anew
//   it does not, which may pass soon (held)                  stay, or wait if it is gone, unless
//                                                            another place has just come, or
//                                                            is on the same interface
//   another place of the family works                        move there
//   only the other family leads out                          not possible natively
//   nothing does                                             wait
//
// Only the change between the two views makes a connection leave a place that works: asked
// again with equal views, a trial that failed is not repeated. A connection that has just
// moved (it may have missed something meanwhile), or been found at the start, is asked about
// with an empty View before.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <set>
#include <span>
#include <string_view>
#include <vector>

#include "watch/view.hpp"

namespace mobility::watch {

/// Who uses a local address: all connections that have these in common.
struct Use {
    struct UnderWay {
        Address to{};
        bool trial = false;
        auto operator<=>(const UnderWay&) const = default;
    };

    Address local{};
    Address remote{};
    unsigned bound = 0;                   ///< to this interface; 0: to none
    std::optional<UnderWay> under_way{};  ///< a migration to another address

    auto operator<=>(const Use&) const = default;
};

/// Who uses which address, of what libtcpmigrate's list() has; each once. The kernel does not
/// tell trials from other moves: `trials` are the cookies of those that are under way.
[[nodiscard]] std::vector<Use> uses_of(std::span<const tcpmigrate::Connection> connections,
                                       const std::set<std::uint64_t>& trials);

/// What it is to do, and why.
struct Move {
    enum class What { Stay, Move, Wait, NotNative };
    enum class Why {
        NotOurs,     ///< stay: the address is not on an interface that leads out, or
                     ///< both ends are this host
        Works,       ///< stay
        Held,        ///< stay or wait: it may work again soon
        UnderWay,    ///< stay: it is moving already
        Better,      ///< move: a better place has come
        Deprecated,  ///< move: as configured
        Back,        ///< move, to the same address: the path has to be proved again
        Lost,        ///< move, wait or not native: the address works no more
    };

    What what = What::Stay;
    Why why = Why::Works;
    Address to{};        ///< of Move
    unsigned index = 0;  ///< its interface
    bool trial = false;  ///< the old address works still: it is used until the new one is proved

    bool operator==(const Move&) const = default;
};

[[nodiscard]] std::string_view to_string(Move::What what);
[[nodiscard]] std::string_view to_string(Move::Why why);

/// One for each use, in their order.
[[nodiscard]] std::vector<Move> decide(const View& before, const View& after,
                                       std::span<const Use> uses, const Policy& policy);

/// The commands that do it, as few as possible. `uses` has to be all that there are of each
/// address: what all of its connections do is one command. A move that is under way begins
/// anew if another connection of the same two addresses has to move.
[[nodiscard]] std::vector<tcpmigrate::MigrateAllRequest> requests(std::span<const Use> uses,
                                                                  std::span<const Move> moves);

}  // namespace mobility::watch
