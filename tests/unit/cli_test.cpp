// SPDX-License-Identifier: GPL-2.0-or-later
// migrate-ctl as a whole: arguments in, text or JSON and exit code out, over a
// fake kernel and a fake /proc. All JSON is checked against docs/json.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <sstream>

#include "commands.hpp"
#include "fake_kernel.hpp"
#include "temporary.hpp"

using namespace tcpmigrate;
namespace fs = std::filesystem;

namespace {

/// Feeds `text` to validate_json.py; the validator says on stderr what is wrong.
bool fits_schema(const std::string& text, const std::string& schema) {
    const std::string command = "/usr/bin/python3 " SOURCE_DIR "/validate_json.py " SCHEMA_DIR "/" +
                                schema + ".schema.json";
    FILE* pipe = popen(command.c_str(), "w");
    fputs(text.c_str(), pipe);
    return pclose(pipe) == 0;
}

class Cli : public testing::Test {
  protected:
    Cli() { kernel_.connections = {fake::sample(17), fake::sample(18)}; }

    int run(std::vector<std::string> arguments) {
        out_.str("");
        err_.str("");
        ctl::System system{
            [this]() -> Result<std::unique_ptr<Transport>> {
                return patched_
                           ? Result(fake::make_transport(kernel_))
                           : Result<std::unique_ptr<Transport>>(make_error(ENOENT, "no family"));
            },
            [this]() -> Result<std::unique_ptr<EventSource>> { return fake::make_events(kernel_); },
            [this](const std::vector<std::string>& argv) -> Result<std::string> {
                const auto found = tools_.find(argv[0]);
                return found == tools_.end()
                           ? Result<std::string>(make_error(ENOENT, "not installed"))
                           : Result<std::string>(found->second);
            },
            [this] { return kernel_.clock; },
            [] { return std::chrono::milliseconds(1700000000123); },
            proc_.path(),
            in_,
            out_,
            err_};
        system.ask_daemon = [this](const std::string& line) -> Result<std::string> {
            asked_ = nlohmann::json::parse(line);
            return daemon_ ? Result<std::string>(*daemon_)
                           : Result<std::string>(make_error(ECONNREFUSED, "nobody listens"));
        };
        system.follow_daemon = [this](const std::string& line, const auto& take) -> Result<void> {
            asked_ = nlohmann::json::parse(line);
            for (const auto& one : told_) {
                if (!take(one)) {
                    return {};
                }
            }
            return make_error(ECONNRESET, "it has ended");
        };
        return ctl::run_cli(system, std::move(arguments));
    }
    /// Runs with -j, checks the schema, returns the first value.
    nlohmann::json run_json(std::vector<std::string> arguments, const std::string& schema,
                            int expected = ctl::kOk) {
        arguments.insert(arguments.begin(), "-j");
        EXPECT_EQ(run(arguments), expected) << err_.str();
        EXPECT_TRUE(fits_schema(out_.str(), schema)) << out_.str();
        return nlohmann::json::parse(out_.str().substr(0, out_.str().find('\n')), nullptr, false);
    }
    [[nodiscard]] bool said(const std::string& words) const {
        return (out_.str() + err_.str()).find(words) != std::string::npos;
    }
    /// The events that a successful move of `cookie` brings.
    void script_commit(std::uint64_t cookie) {
        auto conn = fake::sample(cookie);
        conn.state = State::MigSent;
        conn.reason = Reason::Command;
        kernel_.events.emplace_back(std::vector{conn});
        conn.state = State::MigConfirm;
        conn.reason = Reason::Committed;
        conn.reqno = conn.migrations = 1;
        conn.local.address = *Address::parse("192.0.2.9");
        kernel_.events.emplace_back(std::vector{conn});
    }

    mobility::Temporary proc_;
    fake::Kernel kernel_;
    bool patched_ = true;
    std::map<std::string, std::string> tools_;
    std::optional<std::string> daemon_;  ///< what it answers
    std::vector<std::string> told_;      ///< ... to one who follows
    nlohmann::json asked_;
    std::istringstream in_;
    std::ostringstream out_;
    std::ostringstream err_;
};

}  // namespace

TEST_F(Cli, ListText) {
    EXPECT_EQ(run({"list"}), 0);
    EXPECT_TRUE(said("COOKIE  STATE  FOR"));
    EXPECT_TRUE(
        said("17      idle   1.5 s  ESTABLISHED  192.0.2.1:5000  198.51.100.2:80  direct  0"));
}

TEST_F(Cli, ListEmptyPointsToDoctor) {
    kernel_.connections.clear();
    EXPECT_EQ(run({"list"}), 0);
    EXPECT_TRUE(said("doctor"));
    EXPECT_TRUE(run_json({"list"}, "list")["connections"].empty());
}

TEST_F(Cli, ListJson) {
    kernel_.connections[0].peer_inner = PeerInner{{std::byte{10}, {}, {}, std::byte{9}}, 6000};
    kernel_.connections[0].token_local = 0xdeadbeef;
    kernel_.connections[0].token_remote = 1;
    kernel_.connections[0].new_local = *Target::parse("192.0.2.9:7");
    kernel_.connections[0].new_remote = *Target::parse("192.0.2.8");
    kernel_.connections[0].if_index = 1;
    kernel_.connections[0].uid = 0;
    kernel_.connections[0].inode = 99;
    kernel_.connections[0].left_ms = 5;
    kernel_.connections[0].error = 104;
    kernel_.connections[0].key_mask = 5;
    kernel_.connections[0].state = State{77};
    const auto list = run_json({"list"}, "list")["connections"];
    ASSERT_EQ(list.size(), 2U);
    EXPECT_EQ(list[0]["token_local"], "deadbeef");
    EXPECT_EQ(list[0]["token_remote"], "00000001");
    EXPECT_EQ(list[0]["peer_inner"]["address"], "10.0.0.9");
    EXPECT_EQ(list[0]["keys_accepted"], nlohmann::json({0, 2}));
    EXPECT_EQ(list[0]["interface"]["name"], "lo");
    EXPECT_EQ(list[0]["state"], "state-77");
    EXPECT_EQ(list[1]["local"]["port"], 5001);
    EXPECT_FALSE(list[1].contains("token_local"));
}

TEST_F(Cli, ListFilters) {
    kernel_.connections[1].state = State::MigWait;
    EXPECT_EQ(run_json({"list", "--state", "mig-wait"}, "list")["connections"][0]["cookie"], 18);
    EXPECT_EQ(run_json({"list", "--local", "192.0.2.1"}, "list")["connections"].size(), 2U);
    EXPECT_EQ(run_json({"list", "--remote", "192.0.2.1"}, "list")["connections"].size(), 0U);
    EXPECT_EQ(run({"list", "--state", "waiting"}), ctl::kUsage);
}

TEST_F(Cli, ShowOne) {
    EXPECT_EQ(run({"show", "18"}), 0);
    EXPECT_TRUE(said("192.0.2.1:5001 -> 198.51.100.2:80"));
    EXPECT_FALSE(said(":5000"));
    EXPECT_TRUE(said("idle for 1.5 s: both ends have agreed"));
    EXPECT_EQ(run_json({"show", "18"}, "list")["connections"].size(), 1U);
}

TEST_F(Cli, MissingConnectionIsNamedWithRemedy) {
    EXPECT_EQ(run({"show", "99"}), ctl::kNotFound);
    EXPECT_EQ(err_.str(),
              "migrate-ctl: no migratable connection cookie 99; `migrate-ctl list` shows "
              "the migratable connections\n");
    EXPECT_EQ(run_json({"show", "99"}, "error", ctl::kNotFound)["error"]["errno"], ENOENT);
}

TEST_F(Cli, ConnectionNames) {
    run({"abort", "token:1a2b"});
    EXPECT_EQ(kernel_.requests.back().u32(TCP_MIGRATE_A_CONN_TOKEN), 0x1a2bU);
    run({"abort", "192.0.2.1:5000", "198.51.100.2:80"});
    EXPECT_EQ(kernel_.requests.back().port(TCP_MIGRATE_A_CONN_REMOTE_PORT), 80);
    for (const char* bad : {"x", "token:", "token:g", "-1", "17x", "18446744073709551616"}) {
        EXPECT_EQ(run({"abort", bad}), ctl::kUsage) << bad;
    }
    EXPECT_EQ(run({"abort"}), ctl::kUsage);
    EXPECT_TRUE(said("no connection is named"));
}

TEST_F(Cli, UnpatchedKernel) {
    patched_ = false;
    for (const char* command : {"list", "monitor"}) {
        EXPECT_EQ(run({command}), ctl::kUnsupported);
        EXPECT_TRUE(said("doctor"));
    }
    run_json({"list"}, "error", ctl::kUnsupported);
    EXPECT_EQ(run({"migrate", "17", "--to-local", "192.0.2.9"}), ctl::kUnsupported);
    EXPECT_EQ(run({"stats"}), ctl::kUnsupported);
    EXPECT_EQ(run({"enable"}), ctl::kUnsupported);
}

TEST_F(Cli, MigrateOne) {
    EXPECT_EQ(run({"migrate", "17", "--to-local", "192.0.2.9", "--to-remote", "198.51.100.9:81",
                   "--trial", "--dev", "lo"}),
              0);
    const auto& request = kernel_.requests.back();
    EXPECT_EQ(request.u64(TCP_MIGRATE_A_CONN_COOKIE), 17U);
    EXPECT_EQ(request.address(TCP_MIGRATE_A_CONN_NEW_LOCAL_ADDR), "192.0.2.9");
    EXPECT_EQ(request.port(TCP_MIGRATE_A_CONN_NEW_REMOTE_PORT), 81);
    EXPECT_EQ(request.u32(TCP_MIGRATE_A_CONN_FLAGS), 1U);
    EXPECT_EQ(request.u32(TCP_MIGRATE_A_CONN_IF_INDEX), 1U);
}

TEST_F(Cli, MigrateUsage) {
    const std::vector<std::vector<std::string>> wrong{
        {"migrate", "17"},
        {"migrate", "--to-local", "192.0.2.9"},
        {"migrate", "17", "--from-local", "192.0.2.1", "--to-local", "192.0.2.9"},
        {"migrate", "--from-local", "192.0.2.1", "--to-local", "192.0.2.9:80"},
        {"migrate", "17", "--from-remote", "192.0.2.1", "--to-local", "192.0.2.9"},
        {"migrate", "17", "--to-local", "nowhere"},
        {"migrate", "17", "--to-local", "192.0.2.9:80"},
        {"migrate", "17", "--to-local", "192.0.2.9", "--dev", "nosuchdev0"},
        {"migrate", "17", "--to-local", "192.0.2.9", "--wait=soon"},
    };
    for (const auto& arguments : wrong) {
        EXPECT_EQ(run(arguments), ctl::kUsage);
    }
    EXPECT_TRUE(kernel_.requests.empty());
}

TEST_F(Cli, MigrateErrorsNameConnectionAndRemedy) {
    const std::vector<std::pair<int, std::string>> table{
        {EPERM, "root"},
        {EOPNOTSUPP, "not migratable"},
        {EADDRNOTAVAIL, "ip address"},
        {EADDRINUSE, "another"},
        {ENETUNREACH, "ip route get"},
        {EBUSY, "under way"},
        {ENOENT, "no migratable connection cookie 17"},
    };
    for (const auto& [error, words] : table) {
        kernel_.refuse[TCP_MIGRATE_CMD_MIGRATE] = error;
        const int code = run({"migrate", "17", "--to-local", "192.0.2.9"});
        EXPECT_EQ(code, error == EPERM    ? ctl::kNotPermitted
                        : error == ENOENT ? ctl::kNotFound
                                          : ctl::kFailed);
        EXPECT_TRUE(said("cookie 17")) << err_.str();
        EXPECT_TRUE(said(words)) << err_.str();
    }
    kernel_.refuse[TCP_MIGRATE_CMD_MIGRATE] = EBUSY;
    kernel_.refusal = "the kernel's own sentence";
    run({"migrate", "17", "--to-local", "192.0.2.9"});
    EXPECT_TRUE(said("cookie 17: the kernel's own sentence; "));
}

TEST_F(Cli, MigrateAll) {
    kernel_.migrate_all_reply = {2, 0, 0};
    EXPECT_EQ(run({"migrate", "--from-local", "192.0.2.1", "--to-local", "192.0.2.9"}), 0);
    EXPECT_TRUE(said("2 started to move, 0 could not"));
    EXPECT_EQ(run_json({"migrate", "--from-local", "192.0.2.1", "--to-local", "192.0.2.9"},
                       "migrate")["started"],
              2);
    kernel_.migrate_all_reply = {1, 1, EADDRINUSE};
    EXPECT_EQ(run({"migrate", "--from-local", "192.0.2.1", "--to-local", "192.0.2.9"}),
              ctl::kFailed);
    EXPECT_TRUE(said("another socket"));
}

TEST_F(Cli, WaitUntilCommitted) {
    kernel_.on_migrate = [this] { script_commit(17); };
    EXPECT_EQ(run({"migrate", "--wait", "17", "--to-local", "192.0.2.9"}), 0) << err_.str();
    EXPECT_TRUE(said("committed  192.0.2.1:5000 -> 198.51.100.2:80  now 192.0.2.9:5000"));
    const auto value = run_json({"migrate", "17", "--wait", "--to-local", "192.0.2.9"}, "migrate");
    EXPECT_EQ(value["connections"][0]["outcome"], "committed");
}

TEST_F(Cli, WaitIgnoresEventsFromBefore) {
    auto stale = fake::sample(17);
    stale.reason = Reason::Timeout;
    stale.state = State::MigWait;
    kernel_.events.emplace_back(std::vector{stale});
    kernel_.events.emplace_back(ENOBUFS);
    kernel_.on_migrate = [this] { script_commit(17); };
    EXPECT_EQ(run({"migrate", "17", "--wait", "--to-local", "192.0.2.9"}), 0) << out_.str();
}

TEST_F(Cli, WaitSeesAFailure) {
    kernel_.on_migrate = [this] {
        auto failed = fake::sample(17);
        failed.state = State::MigWait;
        failed.reason = Reason::Timeout;
        kernel_.events.emplace_back(std::vector{failed});
    };
    EXPECT_EQ(run({"migrate", "17", "--wait", "--to-local", "192.0.2.9"}), ctl::kFailed);
    EXPECT_TRUE(said("failed  192.0.2.1:5000 -> 198.51.100.2:80  mig-wait: no answer in time"));
}

TEST_F(Cli, WaitRunsOutOfTime) {
    EXPECT_EQ(run({"migrate", "17", "--wait=2.5", "--to-local", "192.0.2.9"}), ctl::kTimedOut);
    EXPECT_EQ(kernel_.clock.count(), 2500);
    EXPECT_TRUE(said("pending"));
    EXPECT_TRUE(said("1 still under way"));
}

TEST_F(Cli, WaitDumpsAfterLostEvents) {
    kernel_.on_migrate = [this] {
        kernel_.connections[0].state = State::MigSent;
        script_commit(99);  // somebody else
        kernel_.events.emplace_back(ENOBUFS);
    };
    kernel_.on_overrun = [this] {
        kernel_.connections[0].state = State::Idle;
        kernel_.connections[0].reqno++;
    };
    EXPECT_EQ(run({"migrate", "17", "--wait=1", "--to-local", "192.0.2.9"}), 0) << out_.str();
    EXPECT_TRUE(said("committed"));
}

TEST_F(Cli, WaitForAll) {
    kernel_.connections.push_back(fake::sample(19));
    kernel_.connections[2].local.address = *Address::parse("192.0.2.2");
    kernel_.migrate_all_reply = {2, 0, 0};
    kernel_.on_migrate = [this] {
        script_commit(18);
        kernel_.connections[0].reqno = 1;  // has moved before the first dump
    };
    const auto value = run_json(
        {"migrate", "--from-local", "192.0.2.1", "--to-local", "192.0.2.9", "--wait"}, "migrate");
    EXPECT_EQ(value["connections"].size(), 2U) << "19 has another address";
    EXPECT_EQ(value["connections"][0]["outcome"], "committed");
    EXPECT_EQ(value["connections"][1]["outcome"], "committed");
}

TEST_F(Cli, WaitForAllWithOneThatCouldNotStart) {
    kernel_.migrate_all_reply = {1, 1, EADDRINUSE};
    kernel_.on_migrate = [this] {
        kernel_.connections[0].state = State::MigSent;
        script_commit(17);
    };
    EXPECT_EQ(run({"migrate", "--from-local", "192.0.2.1", "--to-local", "192.0.2.9", "--wait"}),
              ctl::kFailed);
    EXPECT_TRUE(said("committed  192.0.2.1:5000"));
    EXPECT_TRUE(said("failed  192.0.2.1:5001"));
}

TEST_F(Cli, Abort) {
    EXPECT_EQ(run({"abort", "17"}), 0);
    EXPECT_EQ(kernel_.requests.back().command, TCP_MIGRATE_CMD_ABORT);
    EXPECT_EQ(run_json({"abort", "17"}, "abort")["aborted"], "cookie 17");
}

TEST_F(Cli, Export) {
    EXPECT_EQ(run({"export", "17"}), 0);
    EXPECT_EQ(out_.str().size(), 65U);
    EXPECT_EQ(run_json({"export", "17"}, "export")["cookie"], 17);
}

TEST_F(Cli, KeyFromFileAndStdin) {
    proc_.write("secret", std::string(64, 'a') + "\n");
    EXPECT_EQ(run({"key", "add", "--remote", "198.51.100.2", "--id", "2", "--secret-file",
                   proc_.at("secret").string()}),
              0)
        << err_.str();
    EXPECT_TRUE(said("key 2: add, 2 connections"));
    EXPECT_EQ(err_.str(), "");
    EXPECT_EQ(kernel_.requests.back().attributes.at(TCP_MIGRATE_A_CONN_KEY),
              Bytes(32, std::byte{0xaa}));
    in_.str(std::string(64, 'b'));
    EXPECT_EQ(run_json({"key", "add", "17", "--secret-file", "-"}, "key")["connections"], 2);
    EXPECT_EQ(kernel_.requests.back().u64(TCP_MIGRATE_A_CONN_COOKIE), 17U);
    EXPECT_EQ(kernel_.requests.back().attributes.at(TCP_MIGRATE_A_CONN_KEY),
              Bytes(32, std::byte{0xbb}));
}

TEST_F(Cli, KeyFileThatOthersCanReadIsReported) {
    proc_.write("secret", std::string(64, 'a'));
    fs::permissions(proc_.at("secret"), fs::perms::owner_read | fs::perms::others_read);
    EXPECT_EQ(run({"key", "add", "17", "--secret-file", proc_.at("secret").string()}), 0);
    EXPECT_TRUE(said("chmod 600"));
}

TEST_F(Cli, KeyOperations) {
    const std::vector<std::pair<const char*, int>> table{
        {"promote", TCP_MIGRATE_KEY_OP_PROMOTE},
        {"exclusive", TCP_MIGRATE_KEY_OP_EXCLUSIVE},
        {"remove", TCP_MIGRATE_KEY_OP_REMOVE}};
    for (const auto& [name, value] : table) {
        EXPECT_EQ(run({"key", name, "17", "--id", "3"}), 0);
        EXPECT_EQ(kernel_.requests.back().u8(TCP_MIGRATE_A_CONN_KEY_OP), value);
        EXPECT_EQ(kernel_.requests.back().u8(TCP_MIGRATE_A_CONN_KEY_ID), 3);
    }
}

TEST_F(Cli, KeyUsage) {
    proc_.write("short", "abc");
    const std::vector<std::vector<std::string>> wrong{
        {"key"},
        {"key", "add", "17"},
        {"key", "add", "17", "--secret-file", proc_.at("missing").string()},
        {"key", "add", "17", "--secret-file", proc_.at("short").string()},
        {"key", "promote", "17", "--secret-file", "-"},
        {"key", "promote", "17", "--id", "4"},
        {"key", "promote", "17", "--remote", "192.0.2.1"},
        {"key", "promote"},
    };
    for (const auto& arguments : wrong) {
        EXPECT_EQ(run(arguments), ctl::kUsage);
    }
    EXPECT_TRUE(kernel_.requests.empty());
}

TEST_F(Cli, KeyErrorNamesTheAddress) {
    kernel_.refuse[TCP_MIGRATE_CMD_KEY] = ENOENT;
    EXPECT_EQ(run({"key", "promote", "--remote", "198.51.100.7"}), ctl::kNotFound);
    EXPECT_TRUE(said("no migratable connection to 198.51.100.7"));
}

TEST_F(Cli, MonitorPrintsEvents) {
    script_commit(17);
    EXPECT_EQ(run({"monitor", "--count", "2"}), 0);
    EXPECT_TRUE(
        said("mig-sent  192.0.2.1:5000 -> 198.51.100.2:80  cookie 17  (a migrate command)"));
    EXPECT_TRUE(said("mig-confirm  192.0.2.9:5000"));
}

TEST_F(Cli, MonitorDumpsAfterOverrun) {
    kernel_.events.emplace_back(ENOBUFS);
    script_commit(17);
    run_json({"monitor", "--count", "2"}, "monitor");
    std::istringstream lines(out_.str());
    std::string types;
    for (std::string line; std::getline(lines, line);) {
        types += nlohmann::json::parse(line)["type"].get<std::string>() + " ";
    }
    EXPECT_EQ(types, "overrun snapshot snapshot event event ");
}

TEST_F(Cli, MonitorSnapshotFirst) {
    script_commit(17);
    EXPECT_EQ(run_json({"monitor", "--snapshot", "--count", "1"}, "monitor")["type"], "snapshot");
}

TEST_F(Cli, MonitorEndsWithAnErrorWhenTheSocketFails) {
    EXPECT_EQ(run({"monitor"}), ctl::kFailed);
}

TEST_F(Cli, Stats) {
    proc_.write(
        "net/netstat",
        "TcpExt: A B\nTcpExt: 1 2\nTcpMigrate: SynSent Commit\nTcpMigrate: 3 0\nIpExt: X\nIpExt: "
        "9\n");
    EXPECT_EQ(run({"stats"}), 0);
    EXPECT_EQ(out_.str(), "SynSent  3\nCommit   0\n");
    EXPECT_EQ(run({"stats", "-z"}), 0);
    EXPECT_EQ(out_.str(), "SynSent  3\n");
    EXPECT_EQ(run_json({"stats"}, "stats")["counters"],
              nlohmann::json({{"SynSent", 3}, {"Commit", 0}}));
    proc_.write("net/netstat", "TcpMigrate: SynSent Commit\nTcpMigrate: 3\n");
    EXPECT_EQ(run({"stats"}), ctl::kFailed);
}

TEST_F(Cli, SwitchSystem) {
    proc_.write("sys/net/tcp_migrate/enabled", "0\n");
    EXPECT_EQ(run({"enable"}), 0);
    EXPECT_EQ(proc_.read("sys/net/tcp_migrate/enabled"), "2\n");
    EXPECT_TRUE(said("/etc/sysctl.d/"));
    EXPECT_EQ(run_json({"enable", "--opt-in"}, "switch")["now"], 1);
    EXPECT_EQ(proc_.read("sys/net/tcp_migrate/enabled"), "1\n");
    EXPECT_EQ(run_json({"disable"}, "switch")["before"], 1);
    EXPECT_EQ(proc_.read("sys/net/tcp_migrate/enabled"), "0\n");
}

TEST_F(Cli, CommandLineErrorsAndHelp) {
    EXPECT_EQ(run({}), ctl::kUsage);
    EXPECT_EQ(run({"frobnicate"}), ctl::kUsage);
    EXPECT_EQ(run({"list", "--nonsense"}), ctl::kUsage);
    EXPECT_EQ(run({"--help"}), 0);
    EXPECT_EQ(run({"migrate", "--help"}), 0);
    EXPECT_EQ(run({"--version"}), 0);
    EXPECT_EQ(run({"run"}), ctl::kUsage);
    EXPECT_EQ(run({"list", "-j"}), 0) << "-j is understood anywhere";
    EXPECT_EQ(out_.str()[0], '{');
}

// ---- doctor ----------------------------------------------------------------

namespace {

std::map<std::string, std::string> by_id(const nlohmann::json& doctor) {
    std::map<std::string, std::string> found;
    for (const auto& finding : doctor["findings"]) {
        found[finding["id"]] = finding["severity"];
        EXPECT_TRUE(finding["severity"] == "ok" || finding.contains("remedy")) << finding;
    }
    return found;
}

std::string ruleset(const std::string& expr) {
    return R"({"nftables":[{"metainfo":{"version":"1.0.6"}},{"rule":{"family":"inet","table":"t",)"
           R"("chain":"c","handle":4,"expr":)" +
           expr + "}}]}";
}

}  // namespace

TEST_F(Cli, DoctorHealthy) {
    proc_.write("sys/net/tcp_migrate/enabled", "2\n");
    proc_.write("self/status", "Name:\tx\nCapEff:\t000001ffffffffff\n");
    proc_.write("sys/net/ipv4/conf/all/rp_filter", "0\n");
    proc_.write("sys/net/ipv4/tcp_syncookies", "1\n");
    tools_["nft"] = ruleset(R"([{"accept":null}])");
    const auto found = by_id(run_json({"doctor"}, "doctor"));
    EXPECT_EQ(found, (std::map<std::string, std::string>{
                         {"kernel", "ok"}, {"enabled", "ok"}, {"rp_filter", "ok"}, {"nft", "ok"}}));
    EXPECT_EQ(run({"doctor"}), 0);
    EXPECT_TRUE(said("[ok] on for all new connections"));
}

TEST_F(Cli, DoctorUnpatchedKernel) {
    patched_ = false;
    const auto found = by_id(run_json({"doctor"}, "doctor", ctl::kFailed));
    EXPECT_EQ(found.at("kernel"), "problem");
    EXPECT_EQ(found.at("enabled"), "problem");
    run({"doctor"});
    EXPECT_TRUE(said("    remedy: build and boot the patched kernel"));
}

TEST_F(Cli, DoctorSwitchedOff) {
    proc_.write("sys/net/tcp_migrate/enabled", "0\n");
    EXPECT_EQ(by_id(run_json({"doctor"}, "doctor", ctl::kFailed)).at("enabled"), "problem");
    proc_.write("sys/net/tcp_migrate/enabled", "1\n");
    EXPECT_EQ(by_id(run_json({"doctor"}, "doctor")).at("enabled"), "info");
}

TEST_F(Cli, DoctorSettings) {
    proc_.write("sys/net/tcp_migrate/enabled", "2\n");
    proc_.write("sys/net/tcp_migrate/require_strong", "1\n");
    proc_.write("sys/net/ipv4/tcp_syncookies", "2\n");
    proc_.write("self/status", "CapEff:\t0000000000000000\n");
    proc_.write("net/netstat", "TcpMigrate: SynFallback\nTcpMigrate: 3\n");
    proc_.write("sys/net/ipv4/conf/all/rp_filter", "1\n");
    proc_.write("sys/net/ipv4/conf/eth0.5/rp_filter", "0\n");
    proc_.write("sys/net/ipv4/conf/wlan0/rp_filter", "2\n");
    const auto found = by_id(run_json({"doctor"}, "doctor"));
    EXPECT_EQ(found.at("require_strong"), "info");
    EXPECT_EQ(found.at("syncookies"), "warning");
    EXPECT_EQ(found.at("privilege"), "info");
    EXPECT_EQ(found.at("fallback"), "info");
    EXPECT_EQ(found.at("rp_filter"), "warning");
    run({"doctor"});
    EXPECT_TRUE(said("net/ipv4/conf/eth0.5/rp_filter=2`"));
    EXPECT_FALSE(said("wlan0")) << "2 is loose and wins over all=1";
}

TEST_F(Cli, DoctorOneInterfaceMayFilterStrictly) {
    proc_.write("sys/net/tcp_migrate/enabled", "2\n");
    proc_.write("sys/net/ipv4/conf/all/rp_filter", "1\n");
    proc_.write("sys/net/ipv4/conf/eth0/rp_filter", "1\n");
    proc_.write("sys/net/ipv4/conf/lo/rp_filter", "1\n");
    EXPECT_EQ(by_id(run_json({"doctor"}, "doctor")).at("rp_filter"), "ok");
}

TEST_F(Cli, DoctorNftRules) {
    // As `nft -j list ruleset` of version 1.0.6 prints them.
    proc_.write("sys/net/tcp_migrate/enabled", "2\n");
    const std::vector<std::pair<std::string, std::string>> table{
        {R"([{"match":{"op":"==","left":{"tcp option":{"base":254,"offset":0,"len":8}},"right":true}},{"drop":null}])",
         "nft_option"},
        {R"([{"reset":{"tcp option":{"base":254,"offset":0,"len":0}}}])", "nft_option"},
        {R"([{"match":{"op":"in","left":{"ct":{"key":"state"}},"right":"invalid"}},{"drop":null}])",
         "nft_invalid"},
        {R"([{"match":{"op":"==","left":{"ct":{"key":"state"}},"right":{"set":["invalid","untracked"]}}},{"counter":{"packets":0,"bytes":0}},{"drop":null}])",
         "nft_invalid"},
        {R"([{"match":{"op":"==","left":{"tcp option":{"base":253,"offset":0,"len":8}},"right":true}},{"drop":null}])",
         "nft"},
        {R"([{"match":{"op":"==","left":{"tcp option":{"base":254,"offset":0,"len":8}},"right":true}},{"accept":null}])",
         "nft"},
        {R"([{"match":{"op":"in","left":{"ct":{"key":"state"}},"right":"established"}},{"drop":null}])",
         "nft"},
    };
    for (const auto& [expr, id] : table) {
        tools_["nft"] = ruleset(expr);
        const bool harmful = id == "nft_option";
        const auto found = by_id(run_json({"doctor"}, "doctor", harmful ? ctl::kFailed : ctl::kOk));
        EXPECT_TRUE(found.contains(id)) << expr;
        EXPECT_EQ(found.contains("nft"), id == "nft") << expr;
    }
    tools_["nft"] = ruleset(table[0].first);
    run({"doctor"});
    EXPECT_TRUE(said("nft delete rule inet t c handle 4"));
    tools_["nft"] = "{";
    EXPECT_EQ(run({"doctor"}), 0);
}

TEST_F(Cli, DoctorIptablesRules) {
    proc_.write("sys/net/tcp_migrate/enabled", "2\n");
    tools_["iptables-save"] =
        "*mangle\n-A FORWARD -p tcp -j TCPOPTSTRIP --strip-options 5,254\nCOMMIT\n*filter\n"
        "-A INPUT -m conntrack --ctstate INVALID -j DROP\n";
    const auto found = by_id(run_json({"doctor"}, "doctor", ctl::kFailed));
    EXPECT_EQ(found.at("iptables_option"), "problem");
    EXPECT_EQ(found.at("iptables_invalid"), "warning");
    run({"doctor"});
    EXPECT_TRUE(
        said("`iptables -t mangle -D FORWARD -p tcp -j TCPOPTSTRIP --strip-options 5,254`"));
    tools_["iptables-save"] = "-A FORWARD -p tcp -j TCPOPTSTRIP --strip-options 2254,25\n";
    EXPECT_FALSE(by_id(run_json({"doctor"}, "doctor")).contains("iptables_option"));
}

TEST_F(Cli, Status) {
    daemon_ = R"({"status":{"version":"1","up_s":200,
        "name":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        "alone":[{"address":"192.0.2.7","connections":2,"failures":3,"why":"refused","next_s":60}],
        "places":[{"interface":"eth0",
        "address":"192.0.2.1","length":24,"reach":"everywhere","rank":0,"present":true,
        "deprecated":false,"held":true,"gateway":"192.0.2.254"}],
        "connections":{"all":3,"moving":1,"waiting":1},
        "stuck":[{"local":"192.0.2.1","remote":"192.0.2.9","what":"not-native","why":"lost"}],
        "vouchers":[{"server":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        "failures":1,"since":1699990000,"expires":1700000000,"why":"refused"},
        {"server":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde0",
        "failures":0,"why":"the server does not vouch for this host"}],
        "counters":{"commands":1}}})";
    EXPECT_EQ(run({"status"}), 0);
    EXPECT_TRUE(said("1, for 3 min 20 s"));
    EXPECT_TRUE(said("3, of which 1 move and 1 wait"));
    EXPECT_TRUE(said("eth0 192.0.2.1/24, reaches everywhere by 192.0.2.254, may be back soon"));
    EXPECT_TRUE(said("not possible natively"));
    EXPECT_TRUE(said("192.0.2.7: no daemon was reached (refused)"));
    EXPECT_TRUE(said("next attempt in 1 min 0 s"));
    EXPECT_TRUE(said("cdef vouches for this host until 2023-11-14 22:13:20 UTC (refused)"));
    EXPECT_TRUE(said("cde0 does not (the server does not vouch for this host)"));
    EXPECT_EQ(asked_, nlohmann::json({{"command", "status"}}));
    EXPECT_EQ(run_json({"status"}, "status")["status"]["up_s"], 200);
}

TEST_F(Cli, Pairs) {
    const std::string host = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    daemon_ = R"({"pairs":[{"host":")" + host + R"(","trust":"pinned","agreed":true,
        "channel":false,"id":"0123456789abcdef0123456789abcdef","inside":true,"seen":"192.0.2.9",
        "servers":[{"name":")" +
              host + R"(","port":7790,"address6":"2001:db8::1"}],
        "connections":[{"cookie":17,"guard":"exclusive","local":"10.0.0.1:5",
                        "remote":"192.0.2.1:80","state":"idle","relayed":true}],
        "resume":{"state":"reported","unsettled":1,"verdict":"needs-proxy"}}]})";
    // A line goes over the socket.
    daemon_->erase(std::remove(daemon_->begin(), daemon_->end(), '\n'), daemon_->end());
    EXPECT_EQ(run({"pairs"}), 0);
    EXPECT_TRUE(said(host));
    EXPECT_TRUE(said("a move was reported"));
    EXPECT_TRUE(said("needs-proxy"));
    EXPECT_TRUE(said("inside a NAPT, seen at 192.0.2.9"));
    EXPECT_TRUE(said("2001:db8::1"));
    EXPECT_TRUE(
        said("17 10.0.0.1:5 -> 192.0.2.1:80, idle, pair key exclusive, relayed by a proxy"));
    EXPECT_EQ(run_json({"pairs"}, "pairs")["pairs"][0]["trust"], "pinned");
    const auto pinned = daemon_->find("\"pinned\"");
    daemon_->replace(pinned, 8,
                     R"("vouched","vouched":{"server":")" + host + R"(","expires":1700000000})");
    EXPECT_EQ(run({"pairs"}), 0);
    EXPECT_TRUE(said("vouched; " + host + " vouches for it until 2023-11-14 22:13:20 UTC"));
    EXPECT_EQ(run_json({"pairs"}, "pairs")["pairs"][0]["trust"], "vouched");
    daemon_ = R"({"pairs":[]})";
    EXPECT_EQ(run({"pairs"}), 0);
    EXPECT_TRUE(said("no pairs"));
}

TEST_F(Cli, ServersAndReport) {
    daemon_ =
        R"({"servers":[{"name":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        "address":"192.0.2.1","from":"10.0.0.1","seen":"192.0.2.9","state":"joined",
        "migratable":true,"failures":0}]})";
    EXPECT_EQ(run({"servers"}), 0);
    EXPECT_TRUE(said("192.0.2.1  10.0.0.1  192.0.2.9  joined  yes"));
    run_json({"servers"}, "servers");
    daemon_ = R"({"servers":[]})";
    EXPECT_EQ(run({"servers"}), 0);
    EXPECT_TRUE(said("no channels"));
    daemon_ = R"({"report":{"pairs":2,"exchanges":1}})";
    EXPECT_EQ(run({"report"}), 0);
    EXPECT_TRUE(said("2 pairs reported, 1 peers are tried again"));
    run_json({"report"}, "report");
}

TEST_F(Cli, Log) {
    daemon_ = R"({"log":["time=1 level=info event=a","time=2 level=info event=b"]})";
    EXPECT_EQ(run({"log", "-n", "5"}), 0);
    EXPECT_EQ(out_.str(), "time=1 level=info event=a\ntime=2 level=info event=b\n");
    EXPECT_EQ(asked_["lines"], 5);
    EXPECT_EQ(run_json({"log"}, "log")["log"].size(), 2);
}

TEST_F(Cli, LogIsFollowedUntilItEnds) {
    told_ = {R"({"log":["event=a","event=b"]})", R"({"log":["event=c"]})"};
    EXPECT_EQ(run({"log", "-n", "2", "-f"}), ctl::kNoDaemon);
    EXPECT_EQ(out_.str(), "event=a\nevent=b\nevent=c\n");
    EXPECT_TRUE(said("it has ended"));
    EXPECT_EQ(asked_, nlohmann::json({{"command", "log"}, {"lines", 2}, {"follow", true}}));
    EXPECT_EQ(run({"-j", "log", "--follow"}), ctl::kNoDaemon);
    EXPECT_TRUE(out_.str().starts_with(told_[0] + "\n" + told_[1] + "\n")) << out_.str();
    told_ = {R"({"error":{"errno":16,"message":"so many follow already"}})", "not read any more"};
    EXPECT_EQ(run({"log", "-f"}), ctl::kFailed);
    EXPECT_TRUE(said("so many follow already"));
}

TEST_F(Cli, NoDaemon) {
    EXPECT_EQ(run({"status"}), ctl::kNoDaemon);
    EXPECT_TRUE(said("systemctl start mobility-client"));
    run_json({"log"}, "error", ctl::kNoDaemon);
    daemon_ = R"({"error":{"errno":95,"message":"there is no command"}})";
    EXPECT_EQ(run({"status"}), ctl::kFailed);
    EXPECT_TRUE(said("there is no command"));
    for (const auto* answer : {"nonsense", "{}", R"({"error":7})"}) {
        daemon_ = answer;
        EXPECT_EQ(run({"status"}), ctl::kNoDaemon) << answer;
    }
}
