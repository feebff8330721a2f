// SPDX-License-Identifier: GPL-2.0-or-later
// How much somebody may say: so many things a second, and some at once. Who says more has
// to wait for it.
#pragma once

#include <algorithm>
#include <chrono>

namespace mobility {

class Pace {
  public:
    using Time = std::chrono::steady_clock::time_point;
    using Duration = std::chrono::steady_clock::duration;

    struct Limit {
        double per_second = 0;
        double burst = 0;
    };

    /// It has said nothing for long.
    Pace(const Limit& limit, Time now) : credit_(limit.burst), since_(now) {}

    /// It says one thing more: how long it has to wait before it says the next.
    Duration step(const Limit& limit, Time now) {
        const std::chrono::duration<double> passed = now - since_;
        since_ = now;
        credit_ = std::min(limit.burst, credit_ + passed.count() * limit.per_second) - 1;
        const std::chrono::duration<double> wait(std::max(0.0, -credit_ / limit.per_second));
        return std::chrono::duration_cast<Duration>(wait);
    }

  private:
    double credit_;
    Time since_;  ///< when it was so
};

}  // namespace mobility
