// SPDX-License-Identifier: GPL-2.0-or-later
// doctor: is the kernel patched, is it on, and what stands in the way? Every
// check is one function that adds findings; each finding that is not fine
// comes with its remedy.

#include <sys/utsname.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <iterator>
#include <nlohmann/json.hpp>
#include <ostream>
#include <sstream>

#include "commands.hpp"
#include "output.hpp"

namespace ctl {

using nlohmann::json;

namespace {

constexpr int kOptionKind = 254;  // TCP option of RFC 6994 experiments

enum class Severity { Ok, Info, Warning, Problem };

struct Finding {
    std::string id;  ///< stable, for programs
    Severity severity = Severity::Ok;
    std::string text;
    std::string remedy;
};
using Findings = std::vector<Finding>;

const char* severity_name(Severity severity) {
    switch (severity) {
        case Severity::Ok:
            return "ok";
        case Severity::Info:
            return "info";
        case Severity::Warning:
            return "warning";
        case Severity::Problem:
            break;
    }
    return "problem";
}

void check_kernel(const System& system, Findings& found) {
    utsname name{};
    uname(&name);
    if (auto transport = system.open_transport(); !transport) {
        const auto& error = transport.error();
        found.push_back({"kernel", Severity::Problem,
                         std::string("kernel ") + name.release + ": " + error.message,
                         error.is(ENOENT) ? "build and boot the patched kernel (see README); in a "
                                            "lab: `make demo`"
                                          : remedy(error.code.value())});
        return;
    }
    found.push_back({"kernel", Severity::Ok,
                     std::string("kernel ") + name.release + " has the tcp_migrate family", ""});
}

void check_enabled(const System& system, Findings& found) {
    auto value = read_sysctl(system, "net.tcp_migrate.enabled");
    if (!value) {
        found.push_back({"enabled", Severity::Problem,
                         "net.tcp_migrate.enabled cannot be read: " + value.error().message,
                         "it comes with the patched kernel; under `ip netns exec` look whether "
                         "/proc is mounted"});
    } else if (*value == 0) {
        found.push_back({"enabled", Severity::Problem,
                         "off: net.tcp_migrate.enabled is 0, new connections are plain TCP",
                         "`migrate-ctl enable`, or `migrate-ctl run -- PROGRAM` for one program"});
    } else if (*value == 1) {
        found.push_back({"enabled", Severity::Info,
                         "opt-in: only sockets and cgroups that ask for it are migratable",
                         "`migrate-ctl enable` for all new connections"});
    } else {
        found.push_back({"enabled", Severity::Ok, "on for all new connections", ""});
    }
}

/// CAP_NET_ADMIN (12) in the effective set, from /proc/self/status.
void check_privilege(const System& system, Findings& found) {
    auto text = read_file(system.proc / "self" / "status");
    const std::string_view key = "CapEff:";
    const auto at = text ? text->find(key) : std::string::npos;
    if (at == std::string::npos) {
        return;
    }
    const auto digits = trim(std::string_view(*text).substr(at + key.size(), 17));
    std::uint64_t set = 0;
    std::from_chars(digits.data(), digits.data() + digits.size(), set, 16);
    if ((set >> 12U & 1U) == 0) {
        found.push_back({"privilege", Severity::Info,
                         "no CAP_NET_ADMIN: connections can be listed, but not moved",
                         "run migrate-ctl as root"});
    }
}

std::vector<std::string> interfaces(const System& system) {
    std::vector<std::string> names;
    std::error_code ignored;
    for (const auto& entry :
         std::filesystem::directory_iterator(system.proc / "sys/net/ipv4/conf", ignored)) {
        const auto name = entry.path().filename().string();
        if (name != "all" && name != "default" && name != "lo") {
            names.push_back(name);
        }
    }
    std::sort(names.begin(), names.end());
    return names;
}

/// Strict reverse path filtering drops what arrives on an interface that is
/// not the route back: make-before-break has both for a while. The kernel uses
/// the larger of the values for "all" and for the interface; only 1 is strict.
void check_rp_filter(const System& system, Findings& found) {
    const auto names = interfaces(system);
    auto all = read_sysctl(system, "net.ipv4.conf.all.rp_filter");
    if (!all) {
        return;
    }
    std::string strict;
    std::string command;
    for (const auto& name : names) {
        // An interface name may hold dots: no sysctl() notation here.
        auto text = read_file(system.proc / "sys/net/ipv4/conf" / name / "rp_filter");
        const int own = text && trim(*text) == "1" ? 1 : text && trim(*text) == "2" ? 2 : 0;
        if (std::max(own, *all) == 1) {
            strict += (strict.empty() ? "" : ", ") + name;
            command += " net/ipv4/conf/" + name + "/rp_filter=2";
        }
    }
    if (!strict.empty() && names.size() > 1) {
        found.push_back({"rp_filter", Severity::Warning,
                         "strict reverse path filtering on " + strict +
                             ": while two interfaces are up, segments that arrive on the one that "
                             "is not the route back are dropped",
                         "`sysctl -w" + command + "`"});
    } else {
        found.push_back({"rp_filter", Severity::Ok, "reverse path filtering lets moves pass", ""});
    }
}

void check_tcp_settings(const System& system, Findings& found) {
    if (auto value = read_sysctl(system, "net.ipv4.tcp_syncookies"); value && *value == 2) {
        found.push_back({"syncookies", Severity::Warning,
                         "net.ipv4.tcp_syncookies is 2: every accepted connection comes from a "
                         "cookie, which has no room for our option",
                         "`sysctl -w net.ipv4.tcp_syncookies=1`"});
    }
    if (auto value = read_sysctl(system, "net.tcp_migrate.require_strong"); value && *value == 1) {
        found.push_back({"require_strong", Severity::Info,
                         "net.tcp_migrate.require_strong is 1: connections without a pair key do "
                         "not migrate",
                         "install keys (`migrate-ctl key add`, or the mobility client), or `sysctl "
                         "-w net.tcp_migrate.require_strong=0`"});
    }
}

// ---- packet filters -------------------------------------------------------

/// True if `node` or anything below satisfies `test`.
template <typename Test>
bool any_below(const json& node, const Test& test) {
    if (test(node)) {
        return true;
    }
    return node.is_structured() && std::any_of(node.begin(), node.end(), [&](const json& child) {
               return any_below(child, test);
           });
}

bool names_our_option(const json& rule) {
    return any_below(rule, [](const json& node) {
        if (!node.is_object() || !node.contains("tcp option")) {
            return false;
        }
        const auto& option = node["tcp option"];
        if (!option.is_object()) {
            return false;
        }
        const auto number = option.value("base", json(option.value("name", json())));
        return number == kOptionKind || number == std::to_string(kOptionKind);
    });
}

bool has_verdict(const json& rule, std::initializer_list<const char*> verdicts) {
    return any_below(rule, [&](const json& node) {
        return node.is_object() && std::any_of(verdicts.begin(), verdicts.end(),
                                               [&](const char* v) { return node.contains(v); });
    });
}

bool matches_invalid(const json& rule) {
    return any_below(rule, [](const json& node) {
        if (!node.is_object() || !node.contains("match") || !node["match"].is_object()) {
            return false;
        }
        const auto& match = node["match"];
        const bool state = any_below(match.value("left", json()), [](const json& left) {
            return left.is_object() && left.value("ct", json()) == json(json({{"key", "state"}}));
        });
        return state && any_below(match.value("right", json()),
                                  [](const json& right) { return right == "invalid"; });
    });
}

std::string rule_place(const json& rule) {
    return rule.value("family", "?") + " " + rule.value("table", "?") + " " +
           rule.value("chain", "?") + " handle " + std::to_string(rule.value("handle", 0));
}

void judge_rule(const json& rule, Findings& found) {
    const auto& what = rule.value("expr", json::array());
    if (names_our_option(what) && has_verdict(what, {"reset", "mangle", "drop", "reject"})) {
        found.push_back({"nft_option", Severity::Problem,
                         "nftables rule (" + rule_place(rule) +
                             ") strips or drops TCP option 254, which carries our handshake",
                         "remove it: `nft delete rule " + rule_place(rule) + "`"});
    }
    if (matches_invalid(what) && has_verdict(what, {"drop", "reject"})) {
        found.push_back(
            {"nft_invalid", Severity::Warning,
             "nftables rule (" + rule_place(rule) +
                 ") drops what conntrack calls invalid: late segments of the old path and requests "
                 "in the reply direction of a connection",
             "accept TCP to this host's migratable connections before it, or `sysctl -w "
             "net.netfilter.nf_conntrack_tcp_be_liberal=1`"});
    }
}

void check_nft(const System& system, Findings& found) {
    auto text = system.capture({"nft", "-j", "list", "ruleset"});
    if (!text) {
        const bool missing = text.error().is(ENOENT);
        found.push_back({"nft", Severity::Info,
                         "nftables rules were not looked at: " + text.error().message,
                         missing ? "install nftables if this host filters packets"
                                 : "run migrate-ctl doctor as root"});
        return;
    }
    const auto ruleset = json::parse(*text, nullptr, false);
    if (!ruleset.is_object() || !ruleset.contains("nftables")) {
        found.push_back(
            {"nft", Severity::Info, "the output of `nft -j list ruleset` is no JSON", ""});
        return;
    }
    const auto before = found.size();
    for (const auto& item : ruleset["nftables"]) {
        if (item.is_object() && item.contains("rule")) {
            judge_rule(item["rule"], found);
        }
    }
    if (found.size() == before) {
        found.push_back({"nft", Severity::Ok, "no nftables rule stands in the way", ""});
    }
}

/// The word after `option` in a line of iptables-save; empty if there is none.
std::string word_after(const std::vector<std::string>& words, std::string_view option) {
    const auto at = std::find(words.begin(), words.end(), option);
    return at == words.end() || std::next(at) == words.end() ? "" : *std::next(at);
}

/// True if the comma-separated `list` has `item`.
bool lists(const std::string& list, const std::string& item) {
    return ("," + list + ",").find("," + item + ",") != std::string::npos;
}

/// `table` is the one the line belongs to.
void judge_iptables_line(const std::string& tool, const std::string& table, const std::string& line,
                         Findings& found) {
    std::istringstream stream(line);
    const std::vector<std::string> words{std::istream_iterator<std::string>(stream), {}};
    const auto kind = std::to_string(kOptionKind);
    const auto verdict = word_after(words, "-j");
    const bool drops = verdict == "DROP" || verdict == "REJECT";
    const bool strips =
        verdict == "TCPOPTSTRIP" && lists(word_after(words, "--strip-options"), kind);
    if (strips || (drops && word_after(words, "--tcp-option") == kind)) {
        found.push_back({"iptables_option", Severity::Problem,
                         tool + " rule strips or drops TCP option 254: " + line,
                         "remove it: `" + tool + " -t " + table + " -D" + line.substr(2) + "`"});
    } else if (drops && (lists(word_after(words, "--ctstate"), "INVALID") ||
                         lists(word_after(words, "--state"), "INVALID"))) {
        found.push_back({"iptables_invalid", Severity::Warning,
                         tool + " rule drops what conntrack calls invalid: " + line,
                         "accept TCP to this host's migratable connections before it, or `sysctl "
                         "-w net.netfilter.nf_conntrack_tcp_be_liberal=1`"});
    }
}

void check_iptables(const System& system, Findings& found) {
    for (const std::string tool : {"iptables", "ip6tables"}) {
        auto text = system.capture({tool + "-save"});
        std::istringstream lines(text ? *text : "");
        std::string table;
        for (std::string line; std::getline(lines, line);) {
            if (line.starts_with('*')) {
                table = line.substr(1);
            } else if (line.starts_with("-A")) {
                judge_iptables_line(tool, table, line, found);
            }
        }
    }
}

/// Counters that say that paths or peers got in the way since boot.
void check_counters(const System& system, Findings& found) {
    auto counters = read_counters(system);
    if (!counters) {
        return;
    }
    for (const auto& [name, value] : *counters) {
        if (value > 0 && name.find("Fallback") != std::string::npos) {
            found.push_back({"fallback", Severity::Info,
                             name + " is " + std::to_string(value) +
                                 ": some path drops SYNs with our option; connections over it are "
                                 "plain TCP",
                             "look for a firewall on the way; net.tcp_migrate.fallback_time says "
                             "how long a destination is remembered"});
        }
    }
}

json findings_json(const Findings& found) {
    json list = json::array();
    for (const auto& finding : found) {
        json item{{"id", finding.id},
                  {"severity", severity_name(finding.severity)},
                  {"text", finding.text}};
        if (!finding.remedy.empty()) {
            item["remedy"] = finding.remedy;
        }
        list.push_back(item);
    }
    return list;
}

void print_findings(const System& system, const Findings& found) {
    for (const auto& finding : found) {
        system.out << '[' << severity_name(finding.severity) << "] " << finding.text << '\n';
        if (!finding.remedy.empty()) {
            system.out << "    remedy: " << finding.remedy << '\n';
        }
    }
}

}  // namespace

int run_doctor(const System& system) {
    Findings found;
    check_kernel(system, found);
    check_enabled(system, found);
    check_privilege(system, found);
    check_rp_filter(system, found);
    check_tcp_settings(system, found);
    check_nft(system, found);
    check_iptables(system, found);
    check_counters(system, found);
    const bool healthy = std::none_of(found.begin(), found.end(), [](const Finding& finding) {
        return finding.severity == Severity::Problem;
    });
    if (system.json) {
        print_json(system, {{"healthy", healthy}, {"findings", findings_json(found)}});
    } else {
        print_findings(system, found);
    }
    return healthy ? kOk : kFailed;
}

}  // namespace ctl
