// SPDX-License-Identifier: GPL-2.0-or-later
// Who may use the server (thesis, chapter 5, asks for it):
//
//   listed     named in the file `hosts`, by whoever runs the server
//   enrolled   has once shown a token of the file `tokens`; its name is kept in the
//              file `enrolled`, so that it stays when the token is withdrawn
//   guest      shows a ticket of a host that is listed or enrolled: it may speak of the
//              pairs its tickets name, with their issuers, and of nothing else
//
// Files hold one name or token to a line; what follows it on the line is a remark, and
// a line that begins with # is one as a whole. A file that is not there is empty.
//
// Not thread-safe. Reads and writes files where it is called: they are short.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "libmobility/identity.hpp"
#include "libmobility/message.hpp"

namespace mobility::server {

struct AdmissionFiles {
    std::filesystem::path hosts = "/etc/mobility-server/hosts";
    std::filesystem::path tokens = "/etc/mobility-server/tokens";
    std::filesystem::path enrolled = "/var/lib/mobility-server/enrolled";

    bool operator==(const AdmissionFiles&) const = default;
};

/// As what a host is let in.
struct Admitted {
    enum class As : std::uint8_t { Nobody, Listed, Enrolled, Guest };
    As as = As::Nobody;
    /// Of a guest: the pairs it may speak of, and with whom.
    std::map<PairId, Name> pairs;
    std::string why_not;  ///< of nobody, for people

    explicit operator bool() const { return as != As::Nobody; }
};

class Admission {
  public:
    /// Hosts that can enrol in all; a token that has leaked fills no disk.
    static constexpr std::size_t kMostEnrolled = 100'000;

    /// Reads the files. EBADMSG if one of them cannot be understood, EACCES if `tokens`
    /// can be read by others than its owner and group.
    static Result<Admission> load(AdmissionFiles files);
    /// Reads them again; if that fails, all stays as it was.
    Result<void> reload();

    /// Who has proved to be `host` says Hello. Fails only if an enrolment cannot be
    /// written down.
    Result<Admitted> admit(const Name& host, const Hello& hello,
                           std::chrono::system_clock::time_point now);
    /// Listed or enrolled.
    [[nodiscard]] bool knows(const Name& host) const {
        return hosts_.contains(host) || enrolled_.contains(host);
    }

  private:
    explicit Admission(AdmissionFiles files) : files_(std::move(files)) {}

    [[nodiscard]] bool is_token(std::string_view text) const;
    Result<Admitted> enrol(const Name& host);
    [[nodiscard]] Admitted by_ticket(const Name& host, const std::vector<Ticket>& tickets,
                                     std::chrono::system_clock::time_point now) const;

    AdmissionFiles files_;
    std::set<Name> hosts_;
    std::set<Name> enrolled_;
    std::vector<std::string> tokens_;
};

}  // namespace mobility::server
