// SPDX-License-Identifier: GPL-2.0-or-later
// Tests of channels over loopback: hosts, and an io_context that runs a task until
// nothing is under way any more.
#pragma once

#include <gtest/gtest.h>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <chrono>
#include <exception>
#include <functional>
#include <utility>

#include "libmobility/channel.hpp"

namespace mobility {

struct Host {
    Identity identity = std::move(*Identity::create());
    Tls tls = std::move(*Tls::create(identity));

    [[nodiscard]] Name name() const { return identity.name(); }
};

class LoopbackTest : public testing::Test {
  protected:
    /// Runs the task, does what is to be done at its end, and waits for all that is left.
    void run_dry(boost::asio::awaitable<void> task, const std::function<void()>& at_end = {}) {
        bool done = false;
        boost::asio::co_spawn(io, std::move(task), [&](const std::exception_ptr& thrown) {
            EXPECT_FALSE(thrown);
            done = true;
            if (at_end) {
                at_end();
            }
        });
        io.restart();
        io.run_for(kLongest);
        EXPECT_TRUE(done);
        EXPECT_TRUE(io.stopped()) << "something is still under way";
    }

    boost::asio::io_context io{1};

  private:
    // Only what hangs takes so long: machines can be slow.
    static constexpr std::chrono::minutes kLongest{4};
};

}  // namespace mobility
