// SPDX-License-Identifier: GPL-2.0-or-later
// migrate, with or without waiting for the end.
//
// Waiting: 1. join the events, 2. dump (what is about to move, and its ReqNo),
// 3. drop events from before, 4. the command, 5. dump (what has moved already),
// 6. follow events; after lost ones (ENOBUFS) dump again. A connection has
// moved when an event says so or its ReqNo differs from step 2.

#include <net/if.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <ostream>

#include "commands.hpp"
#include "output.hpp"

namespace ctl {

using std::chrono::milliseconds;
using tcpmigrate::Address;
using tcpmigrate::Client;
using tcpmigrate::Connection;
using tcpmigrate::EventSource;
using tcpmigrate::make_error;
using tcpmigrate::MigrateAllReply;
using tcpmigrate::MigrateAllRequest;
using tcpmigrate::MigrateRequest;
using tcpmigrate::MigrationWatch;
using tcpmigrate::Result;
using tcpmigrate::Target;

namespace {

/// The command line, understood: one of the two requests.
struct Plan {
    std::optional<MigrateRequest> one;
    std::optional<MigrateAllRequest> all;

    [[nodiscard]] std::string subject() const {
        return one ? to_string(one->name) : "connections from " + all->old_local.to_string();
    }
};

Result<Target> parse_target(const std::string& text) {
    return text.empty() ? Result<Target>(Target{}) : Target::parse(text);
}

Result<std::uint32_t> parse_device(const std::string& name) {
    if (name.empty()) {
        return 0U;
    }
    const unsigned index = if_nametoindex(name.c_str());
    if (index == 0) {
        return make_error(ENODEV, "there is no interface '" + name + "'");
    }
    return index;
}

Result<MigrateAllRequest> plan_all(const MigrateOptions& options, const Target& to_local,
                                   const Target& to_remote) {
    if (!options.name.empty()) {
        return make_error(EINVAL, "name one connection or give --from-local, not both");
    }
    if (to_local.port || to_remote.port) {
        return make_error(EINVAL,
                          "many connections cannot move to one port: give --to-local and "
                          "--to-remote without one");
    }
    auto old_local = Address::parse(options.from_local);
    if (!old_local) {
        return old_local.error();
    }
    MigrateAllRequest request;
    request.old_local = *old_local;
    if (!options.from_remote.empty()) {
        auto remote = Address::parse(options.from_remote);
        if (!remote) {
            return remote.error();
        }
        request.remote = *remote;
    }
    request.new_local = to_local.address;
    request.new_remote = to_remote.address;
    return request;
}

template <typename Request>
Request with_how(Request request, const MigrateOptions& options, std::uint32_t if_index) {
    request.if_index = if_index;
    request.trial = options.trial;
    request.no_syn = options.no_syn;
    return request;
}

Result<Plan> make_plan(const MigrateOptions& options) {
    auto to_local = parse_target(options.to_local);
    auto to_remote = parse_target(options.to_remote);
    auto if_index = parse_device(options.device);
    if (!to_local || !to_remote || !if_index) {
        return !to_local ? to_local.error() : !to_remote ? to_remote.error() : if_index.error();
    }
    if (to_local->empty() && to_remote->empty() && !options.no_syn && *if_index == 0) {
        return make_error(EINVAL, "nowhere to move to: give --to-local, --to-remote or --dev");
    }
    if (!options.from_remote.empty() && options.from_local.empty()) {
        return make_error(EINVAL, "--from-remote only narrows --from-local");
    }
    Plan plan;
    if (!options.from_local.empty()) {
        auto all = plan_all(options, *to_local, *to_remote);
        if (!all) {
            return all.error();
        }
        plan.all = with_how(*all, options, *if_index);
        return plan;
    }
    auto name = parse_name(options.name);
    if (!name) {
        return name.error();
    }
    if (to_local->port) {
        return make_error(EINVAL, "a connection keeps its local port: give --to-local without one");
    }
    plan.one = with_how(MigrateRequest{*name, *to_local, *to_remote}, options, *if_index);
    return plan;
}

/// Sends the command. For one connection the reply counts that one.
Result<MigrateAllReply> execute(Client& client, const Plan& plan) {
    if (plan.all) {
        return client.migrate_all(*plan.all);
    }
    auto result = client.migrate(*plan.one);
    return result ? Result<MigrateAllReply>(MigrateAllReply{1, 0, 0}) : result.error();
}

/// The connections that the command is going to concern.
Result<std::vector<Connection>> concerned(Client& client, const Plan& plan) {
    if (plan.one) {
        auto conn = client.get(plan.one->name);
        return conn ? Result(std::vector{*conn}) : conn.error();
    }
    auto all = client.list();
    if (all) {
        std::erase_if(*all, [&](const Connection& conn) {
            return conn.state == tcpmigrate::State::None ||
                   conn.local.address != plan.all->old_local ||
                   (plan.all->remote && conn.remote.address != *plan.all->remote);
        });
    }
    return all;
}

const char* outcome_name(MigrationWatch::Outcome outcome) {
    switch (outcome) {
        case MigrationWatch::Outcome::Committed:
            return "committed";
        case MigrationWatch::Outcome::Failed:
            return "failed";
        case MigrationWatch::Outcome::Pending:
            break;
    }
    return "pending";
}

/// Follows the events until all have ended or the deadline (negative: none) is
/// reached. False on time-out.
Result<bool> follow(const System& system, Client& client, EventSource& events,
                    MigrationWatch& watch, milliseconds deadline) {
    while (watch.pending() > 0) {
        const auto left = deadline - system.steady_now();
        if (deadline.count() >= 0 && left.count() <= 0) {
            return false;
        }
        auto batch = events.receive(deadline.count() < 0 ? milliseconds(-1) : left);
        if (batch) {
            for (const auto& event : *batch) {
                watch.observe(event);
            }
            continue;
        }
        if (!batch.error().is(ENOBUFS)) {
            return batch.error();
        }
        auto now = client.list();
        if (!now) {
            return now.error();
        }
        watch.reconcile(*now, true);
    }
    return true;
}

/// Steps 3 to 6 of the head comment.
Result<bool> migrate_and_follow(const System& system, Client& client, EventSource& events,
                                const Plan& plan, MigrationWatch& watch, MigrateAllReply& reply,
                                double seconds) {
    for (auto stale = events.receive(milliseconds(0)); !stale || !stale->empty();) {
        if (!stale && !stale.error().is(ENOBUFS)) {
            return stale.error();
        }
        stale = events.receive(milliseconds(0));
    }
    auto executed = execute(client, plan);
    if (!executed) {
        return executed.error();
    }
    reply = *executed;
    const auto limit = milliseconds(static_cast<std::int64_t>(seconds * 1000));
    const auto deadline = seconds < 0 ? milliseconds(-1) : system.steady_now() + limit;
    auto now = client.list();
    if (!now) {
        return now.error();
    }
    watch.reconcile(*now, reply.failed > 0);
    return follow(system, client, events, watch, deadline);
}

void print_outcome(const System& system, const MigrationWatch::Entry& entry) {
    system.out << outcome_name(entry.outcome) << "  " << entry.before.tuple();
    if (entry.outcome == MigrationWatch::Outcome::Committed) {
        system.out << "  now " << entry.last.tuple();
    } else if (entry.outcome == MigrationWatch::Outcome::Failed) {
        const auto why = tcpmigrate::explain(entry.last.reason);
        system.out << "  " << to_string(entry.last.state) << (why.empty() ? "" : ": ") << why;
    }
    system.out << '\n';
}

int show_followed(const System& system, const MigrationWatch& watch, const MigrateAllReply& reply,
                  bool ended) {
    nlohmann::json list = nlohmann::json::array();
    for (const auto& [cookie, entry] : watch.entries()) {
        if (system.json) {
            list.push_back({{"outcome", outcome_name(entry.outcome)},
                            {"before", to_json(entry.before)},
                            {"after", to_json(entry.last)}});
        } else {
            print_outcome(system, entry);
        }
    }
    if (system.json) {
        print_json(
            system,
            {{"started", reply.count}, {"failed_to_start", reply.failed}, {"connections", list}});
    } else if (watch.entries().empty()) {
        system.out << "no connection to move\n";
    }
    if (!ended) {
        system.err << "migrate-ctl: time is up, " << watch.pending()
                   << " still under way; `migrate-ctl list` shows them\n";
        return kTimedOut;
    }
    return watch.any_failed() || reply.failed > 0 ? kFailed : kOk;
}

int show_started(const System& system, const Plan& plan, const MigrateAllReply& reply) {
    if (system.json) {
        print_json(system, {{"started", reply.count}, {"failed_to_start", reply.failed}});
    } else if (plan.all || reply.failed > 0) {
        system.out << reply.count << " started to move, " << reply.failed << " could not\n";
    }
    if (reply.failed > 0) {
        const auto advice = remedy(static_cast<int>(reply.error));
        system.err << "migrate-ctl: " << reply.failed << " of the " << plan.subject()
                   << " could not start to move: " << std::strerror(static_cast<int>(reply.error))
                   << (advice.empty() ? "" : "; ") << advice << '\n';
        return kFailed;
    }
    return kOk;
}

int run_waiting(const System& system, Client& client, const Plan& plan, double seconds) {
    auto events = system.open_events();
    if (!events) {
        return report_open(system, events.error());
    }
    auto before = concerned(client, plan);
    if (!before) {
        return report(system, before.error(), plan.subject());
    }
    MigrationWatch watch(*before);
    MigrateAllReply reply;
    auto ended = migrate_and_follow(system, client, **events, plan, watch, reply, seconds);
    if (!ended) {
        return report(system, ended.error(), plan.subject());
    }
    return show_followed(system, watch, reply, *ended);
}

}  // namespace

int run_migrate(const System& system, const MigrateOptions& options) {
    auto plan = make_plan(options);
    if (!plan) {
        (void)report(system, plan.error());
        return kUsage;
    }
    auto client = system.client();
    if (!client) {
        return report_open(system, client.error());
    }
    if (options.wait) {
        return run_waiting(system, *client, *plan, *options.wait);
    }
    auto reply = execute(*client, *plan);
    if (!reply) {
        return report(system, reply.error(), plan->subject());
    }
    return show_started(system, *plan, *reply);
}

int run_abort(const System& system, const std::vector<std::string>& words) {
    auto name = parse_name(words);
    if (!name) {
        (void)report(system, name.error());
        return kUsage;
    }
    auto client = system.client();
    if (!client) {
        return report_open(system, client.error());
    }
    if (auto result = client->abort(*name); !result) {
        return report(system, result.error(), to_string(*name));
    }
    if (system.json) {
        print_json(system, {{"aborted", to_string(*name)}});
    }
    return kOk;
}

}  // namespace ctl
