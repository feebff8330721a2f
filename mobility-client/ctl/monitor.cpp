// SPDX-License-Identifier: GPL-2.0-or-later
// monitor: prints every event as it comes. When the kernel had to drop events
// (ENOBUFS) it says so and prints the state of all connections anew, so that a
// reader is never left with an outdated picture.

#include <array>
#include <cerrno>
#include <ctime>
#include <nlohmann/json.hpp>
#include <ostream>

#include "commands.hpp"
#include "output.hpp"

namespace ctl {

using tcpmigrate::Connection;
using tcpmigrate::Result;

namespace {

std::string clock_text(System::Milliseconds since_epoch) {
    const std::time_t seconds = since_epoch.count() / 1000;
    std::tm parts{};
    localtime_r(&seconds, &parts);
    std::array<char, 32> text{};
    const auto size = std::strftime(text.data(), text.size(), "%H:%M:%S", &parts);
    (void)std::snprintf(text.data() + size, text.size() - size, ".%03d",
                        static_cast<int>(since_epoch.count() % 1000));
    return text.data();
}

/// `type` is "event", or "snapshot" for a state that was asked for.
void print_one(const System& system, const char* type, const Connection& conn) {
    const auto now = system.wall_now();
    if (system.json) {
        print_json(system,
                   {{"type", type}, {"time_ms", now.count()}, {"connection", to_json(conn)}});
        return;
    }
    system.out << clock_text(now) << "  " << to_string(conn.state) << "  " << conn.tuple()
               << "  cookie " << conn.cookie;
    if (const auto why = tcpmigrate::explain(conn.reason); !why.empty()) {
        system.out << "  (" << why << ")";
    }
    system.out << std::endl;
}

Result<void> print_snapshot(const System& system, tcpmigrate::Client& client) {
    auto all = client.list();
    if (!all) {
        return all.error();
    }
    for (const auto& conn : *all) {
        print_one(system, "snapshot", conn);
    }
    return {};
}

void print_overrun(const System& system) {
    if (system.json) {
        print_json(system, {{"type", "overrun"}, {"time_ms", system.wall_now().count()}});
    } else {
        system.out << clock_text(system.wall_now())
                   << "  events were lost; the state of all connections:" << std::endl;
    }
}

/// Prints what the next datagram brings; returns the number of events.
Result<std::size_t> step(const System& system, tcpmigrate::Client& client,
                         tcpmigrate::EventSource& events) {
    auto batch = events.receive(System::Milliseconds(-1));
    if (batch) {
        for (const auto& event : *batch) {
            print_one(system, "event", event);
        }
        return batch->size();
    }
    if (!batch.error().is(ENOBUFS)) {
        return batch.error();
    }
    print_overrun(system);
    auto shown = print_snapshot(system, client);
    return shown ? Result<std::size_t>(0U) : shown.error();
}

}  // namespace

int run_monitor(const System& system, const MonitorOptions& options) {
    // Events first: what happens during the dump is then seen twice, not never.
    auto events = system.open_events();
    auto client = system.client();
    if (!events || !client) {
        return report_open(system, events ? client.error() : events.error());
    }
    if (options.snapshot) {
        if (auto shown = print_snapshot(system, *client); !shown) {
            return report(system, shown.error());
        }
    }
    for (std::size_t seen = 0; options.count == 0 || seen < options.count;) {
        auto more = step(system, *client, **events);
        if (!more) {
            return report(system, more.error());
        }
        seen += *more;
    }
    return kOk;
}

}  // namespace ctl
