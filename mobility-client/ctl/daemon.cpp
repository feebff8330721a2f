// SPDX-License-Identifier: GPL-2.0-or-later
// status, pairs, servers, report, log: what mobility-client says of itself. It is asked by its
// control socket, a line of JSON each way; with -j the answer is printed as it came.

#include <sys/socket.h>
#include <sys/un.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <nlohmann/json.hpp>
#include <ostream>

#include "commands.hpp"
#include "output.hpp"
#include "unique_fd.hpp"

namespace ctl {

using nlohmann::json;
using tcpmigrate::make_error;
using tcpmigrate::Result;

namespace {

constexpr std::size_t kMaxAnswer = std::size_t{16} << 20;

Result<UniqueFd> open_socket(const std::string& path) {
    sockaddr_un address{};
    if (path.size() >= sizeof(address.sun_path)) {
        return make_error(ENAMETOOLONG, path + ": too long for a socket");
    }
    address.sun_family = AF_UNIX;
    path.copy(std::data(address.sun_path), path.size());
    UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!fd ||
        ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
        const int code = errno;
        return make_error(code, path + ": " + std::strerror(code));
    }
    return fd;
}

/// The answer's text, or what went wrong, already shown: its exit code.
struct Answer {
    json value;
    int code = kOk;
};

Answer answer_of(const System& system, const char* what, const std::string& line) {
    auto value = json::parse(line, nullptr, false);
    if (value.is_object() && value.contains(what)) {
        return {std::move(value), kOk};
    }
    const bool told = value.is_object() && value.contains("error") && value["error"].is_object();
    const auto error = told ? value["error"] : json::object();
    return {{},
            report_daemon(system,
                          make_error(error.value("errno", EBADMSG),
                                     error.value("message", "an answer that nobody understands")),
                          told)};
}

Answer ask_for(const System& system, const char* what, json request) {
    request["command"] = what;
    const auto line = system.ask_daemon(request.dump());
    return line ? answer_of(system, what, *line)
                : Answer{{}, report_daemon(system, line.error(), false)};
}

// ---- Text ----

std::string text(const json& value, const char* key) {
    const auto found = value.find(key);
    return found != value.end() && found->is_string() ? found->get<std::string>() : "";
}

std::uint64_t number(const json& value, const char* key) {
    const auto found = value.find(key);
    return found != value.end() && found->is_number_unsigned() ? found->get<std::uint64_t>() : 0;
}

bool flag(const json& value, const char* key) {
    const auto found = value.find(key);
    return found != value.end() && found->is_boolean() && found->get<bool>();
}

std::string place_text(const json& place) {
    std::string out = text(place, "interface") + " " + text(place, "address") + "/" +
                      std::to_string(number(place, "length")) + ", reaches " + text(place, "reach");
    if (const auto gateway = text(place, "gateway"); !gateway.empty()) {
        out += " by " + gateway;
    }
    out += flag(place, "deprecated") ? ", deprecated" : "";
    out += flag(place, "held") ? ", may be back soon" : "";
    return out;
}

std::string stuck_text(const json& one) {
    const bool other_family = text(one, "what") == "not-native";
    return text(one, "local") + " -> " + text(one, "remote") + ": " +
           (other_family ? "only the other address family leads out: not possible natively"
                         : "waits for an address that leads there");
}

std::string alone_text(const json& one) {
    return text(one, "address") + ": no daemon was reached (" + text(one, "why") +
           "); only moves of this host alone are possible; next attempt in " +
           duration(number(one, "next_s") * 1000);
}

/// An address of a server, whichever it has.
std::string place_of(const json& server) {
    const auto v4 = text(server, "address");
    return v4.empty() ? text(server, "address6") : v4;
}

/// Seconds since 1970 as a date, UTC.
std::string date(std::uint64_t seconds) {
    const auto time = static_cast<std::time_t>(seconds);
    std::tm parts{};
    std::array<char, 32> out{};
    if (::gmtime_r(&time, &parts) == nullptr ||
        std::strftime(out.data(), out.size(), "%Y-%m-%d %H:%M:%S UTC", &parts) == 0) {
        return "?";
    }
    return out.data();
}

std::string trust_text(const json& pair) {
    const auto vouched = pair.find("vouched");
    return text(pair, "trust") + (vouched == pair.end()
                                      ? ""
                                      : "; " + text(*vouched, "server") + " vouches for it until " +
                                            date(number(*vouched, "expires")));
}

std::string voucher_text(const json& one) {
    const auto until = number(one, "expires");
    const auto why = text(one, "why");
    return text(one, "server") +
           (until == 0 ? " does not" : " vouches for this host until " + date(until)) +
           (why.empty() ? "" : " (" + why + ")");
}

void print_pair(std::ostream& out, const json& pair) {
    const auto resume = pair.value("resume", json::object());
    const auto state = text(resume, "state");
    const auto verdict = text(resume, "verdict");
    out << text(pair, "host") << '\n';
    std::vector<std::vector<std::string>> rows{
        {"  trust", trust_text(pair)},
        {"  state", !flag(pair, "agreed") ? "not agreed yet"
                    : state == "told"     ? "a server has told where the peer is"
                    : state != "settled"  ? "a move was reported"
                    : verdict.empty()     ? "agreed, all connections go on"
                                          : "the peer has reported a move"}};
    if (!verdict.empty()) {
        rows.push_back({"  verdict", verdict});
    }
    if (flag(pair, "agreed")) {
        rows.push_back({"  this host", (flag(pair, "inside") ? "inside a NAPT, seen at "
                                                             : "not inside a NAPT, seen at ") +
                                           text(pair, "seen")});
    }
    for (const auto& server : pair.value("servers", json::array())) {
        rows.push_back({"  server", place_of(server) + " " + text(server, "name")});
    }
    for (const auto& one : pair.value("connections", json::array())) {
        rows.push_back({"  connection", std::to_string(number(one, "cookie")) + " " +
                                            text(one, "local") + " -> " + text(one, "remote") +
                                            ", " + text(one, "state") + ", pair key " +
                                            text(one, "guard") +
                                            (flag(one, "relayed") ? ", relayed by a proxy" : "")});
    }
    print_table(out, rows);
}

/// Asks, and prints the answer with -j; else `print` does.
template <typename Print>
int show(const System& system, const char* what, json request, Print print) {
    const auto answer = ask_for(system, what, std::move(request));
    if (answer.code != kOk) {
        return answer.code;
    }
    if (system.json) {
        print_json(system, answer.value);
    } else {
        print(answer.value[what]);
    }
    return kOk;
}

}  // namespace

Result<void> follow(const std::string& path, const std::string& line,
                    const System::TakeLine& take) {
    auto fd = open_socket(path);
    if (!fd) {
        return fd.error();
    }
    const auto request = line + "\n";
    if (::send(fd->get(), request.data(), request.size(), MSG_NOSIGNAL) !=
        static_cast<ssize_t>(request.size())) {
        return make_error(EIO, path + ": cannot be written to");
    }
    std::string answer;
    std::array<char, 65536> chunk{};
    for (;;) {
        for (auto end = answer.find('\n'); end != std::string::npos; end = answer.find('\n')) {
            if (!take(answer.substr(0, end))) {
                return {};
            }
            answer.erase(0, end + 1);
        }
        const auto size = ::recv(fd->get(), chunk.data(), chunk.size(), 0);
        if (size < 0 && errno == EINTR) {
            continue;
        }
        if (size <= 0 || answer.size() > kMaxAnswer) {
            return make_error(size <= 0 ? ECONNRESET : EMSGSIZE, path + ": no whole answer");
        }
        answer.append(chunk.data(), static_cast<std::size_t>(size));
    }
}

Result<std::string> ask(const std::string& path, const std::string& line) {
    std::string answer;
    const auto heard = follow(path, line, [&](const std::string& first) {
        answer = first;
        return false;
    });
    return heard ? Result<std::string>(answer) : heard.error();
}

int run_status(const System& system) {
    return show(system, "status", json::object(), [&](const json& status) {
        const auto connections = status.value("connections", json::object());
        std::vector<std::vector<std::string>> rows{
            {"mobility-client",
             text(status, "version") + ", for " + duration(number(status, "up_s") * 1000)},
            {"name", text(status, "name")},
            {"connections", std::to_string(number(connections, "all")) + ", of which " +
                                std::to_string(number(connections, "moving")) + " move and " +
                                std::to_string(number(connections, "waiting")) + " wait"}};
        for (const auto& place : status.value("places", json::array())) {
            rows.push_back({"place", place_text(place)});
        }
        for (const auto& one : status.value("stuck", json::array())) {
            rows.push_back({"stuck", stuck_text(one)});
        }
        for (const auto& one : status.value("alone", json::array())) {
            rows.push_back({"peer", alone_text(one)});
        }
        for (const auto& one : status.value("vouchers", json::array())) {
            rows.push_back({"voucher", voucher_text(one)});
        }
        print_table(system.out, rows);
    });
}

int run_pairs(const System& system) {
    return show(system, "pairs", json::object(), [&](const json& pairs) {
        if (pairs.empty()) {
            system.out << "no pairs: no peer's daemon was met, `migrate-ctl status` says why\n";
        }
        for (const auto& pair : pairs) {
            print_pair(system.out, pair);
        }
    });
}

int run_servers(const System& system) {
    return show(system, "servers", json::object(), [&](const json& servers) {
        if (servers.empty()) {
            system.out << "no channels: they are made when a pair has agreed on a server\n";
            return;
        }
        std::vector<std::vector<std::string>> rows{
            {"SERVER", "FROM", "SEEN AT", "STATE", "MIGRATABLE"}};
        for (const auto& one : servers) {
            const auto why = text(one, "why");
            rows.push_back({text(one, "address"), text(one, "from"), text(one, "seen"),
                            text(one, "state") + (why.empty() ? "" : ": " + why),
                            flag(one, "migratable") ? "yes" : "no"});
        }
        print_table(system.out, rows);
    });
}

int run_report(const System& system) {
    return show(system, "report", json::object(), [&](const json& done) {
        system.out << number(done, "pairs") << " pairs reported, " << number(done, "exchanges")
                   << " peers are tried again\n";
    });
}

int run_log(const System& system, const LogOptions& options) {
    const auto print = [&](const json& log) {
        for (const auto& line : log) {
            system.out << (line.is_string() ? line.get<std::string>() : "") << '\n';
        }
    };
    if (!options.follow) {
        return show(system, "log", {{"lines", options.lines}}, print);
    }
    const json request{{"command", "log"}, {"lines", options.lines}, {"follow", true}};
    int code = kOk;
    const auto ended = system.follow_daemon(request.dump(), [&](const std::string& line) {
        const auto answer = answer_of(system, "log", line);
        code = answer.code;
        if (code == kOk && system.json) {
            print_json(system, answer.value);
        } else if (code == kOk) {
            print(answer.value["log"]);
        }
        system.out.flush();
        return code == kOk && system.out.good();
    });
    return ended ? code : report_daemon(system, ended.error(), false);
}

}  // namespace ctl
