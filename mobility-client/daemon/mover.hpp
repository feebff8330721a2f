// SPDX-License-Identifier: GPL-2.0-or-later
// Has connections move when this host does: of what Watcher sees and what the Table knows
// watch::decide() makes moves, and the kernel does them.
//
//     view changes         all connections are decided about, by the change
//     connection moved     it is asked about as if all were new: it may have missed
//                          something while it was under way
//     everything was read  the same for all (restart, lost events)
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <set>

#include "daemon/table.hpp"
#include "watch/decide.hpp"

namespace mobility::client {

struct MoverCounters {
    std::uint64_t commands = 0;    ///< to the kernel
    std::uint64_t begun = 0;       ///< connections that began to move
    std::uint64_t refused = 0;     ///< ... that the kernel did not let
    std::uint64_t committed = 0;   ///< that have arrived, by whose request ever
    std::uint64_t not_native = 0;  ///< decisions that only the other family leads out
};

class Mover {
  public:
    /// Connections of `old_local`, to that peer or all, are to go to `new_local`.
    using OnMove = std::function<void(const tcpmigrate::MigrateAllRequest&)>;

    /// The Table outlives it.
    Mover(Table& table, const watch::Policy& policy, Log log);

    void on_view(const watch::View& before, const watch::View& after);
    void on_event(const Connection& connection);
    /// After a batch of events, or after everything was read anew.
    void on_batch(bool reread);
    /// Told of every command after the kernel has taken it.
    void when_moving(OnMove on_move) { on_move_ = std::move(on_move); }
    void set_policy(const watch::Policy& policy) { policy_ = policy; }

    /// Of those who cannot go on where they are: waiting, or not native.
    [[nodiscard]] const std::map<watch::Use, watch::Move>& stuck() const { return stuck_; }
    [[nodiscard]] const MoverCounters& counters() const { return counters_; }

  private:
    /// `fresh`: uses that are decided about as if all were new.
    void decide(const watch::View& before, const std::set<watch::Use>& fresh);
    void run(const tcpmigrate::MigrateAllRequest& request);
    void note(const std::map<watch::Use, watch::Move>& was, const watch::Use& use,
              const watch::Move& move);

    Table& table_;
    watch::Policy policy_;
    Log log_;
    OnMove on_move_;
    watch::View view_;
    std::map<std::uint64_t, std::uint32_t> moves_;  ///< by cookie: migrations so far
    std::set<std::uint64_t> moved_;                 ///< of this batch
    std::map<watch::Use, watch::Move> stuck_;
    MoverCounters counters_;
};

}  // namespace mobility::client
