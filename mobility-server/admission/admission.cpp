// SPDX-License-Identifier: GPL-2.0-or-later
#include "admission.hpp"

#include <fcntl.h>
#include <openssl/crypto.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "libmobility/lists.hpp"

namespace mobility::server {

namespace {

using std::filesystem::path;
using tcpmigrate::Error;
using tcpmigrate::make_error;

constexpr std::size_t kShortestToken = 16;

Error system_error(const path& file, const char* what) {
    const int code = errno;
    return make_error(code, file.string() + ": " + what + ": " + std::strerror(code));
}

Result<std::vector<std::string>> read_tokens(const path& file) {
    struct stat about {};
    if (::stat(file.c_str(), &about) == 0 && (about.st_mode & 07) != 0) {
        return make_error(EACCES,
                          file.string() + " holds secrets and anybody may read it: chmod o= it");
    }
    std::vector<std::string> tokens;
    const auto done = each_line(file, [&](const std::string& word) -> std::string {
        if (word.size() < kShortestToken || word.size() > kMaxText) {
            return "a token has 16 to 256 characters (openssl rand -hex 16 makes a good one)";
        }
        tokens.push_back(word);
        return {};
    });
    return done ? Result<std::vector<std::string>>(std::move(tokens)) : done.error();
}

/// One line more, on the disk when this returns.
Result<void> append_line(const path& file, const std::string& line) {
    const int fd = ::open(file.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);
    if (fd < 0) {
        return system_error(file, "cannot write");
    }
    const auto bytes = line + "\n";
    const auto written = ::write(fd, bytes.data(), bytes.size());
    const bool good = written == static_cast<ssize_t>(bytes.size()) && ::fsync(fd) == 0;
    auto result = good ? Result<void>() : system_error(file, "cannot write");
    ::close(fd);
    return result;
}

}  // namespace

Result<Admission> Admission::load(AdmissionFiles files) {
    Admission admission(std::move(files));
    const auto done = admission.reload();
    return done ? Result<Admission>(std::move(admission)) : done.error();
}

Result<void> Admission::reload() {
    auto hosts = read_names(files_.hosts);
    auto enrolled = read_names(files_.enrolled);
    auto tokens = read_tokens(files_.tokens);
    for (const auto* failed :
         {hosts ? nullptr : &hosts.error(), enrolled ? nullptr : &enrolled.error(),
          tokens ? nullptr : &tokens.error()}) {
        if (failed != nullptr) {
            return *failed;
        }
    }
    hosts_ = std::move(*hosts);
    enrolled_ = std::move(*enrolled);
    tokens_ = std::move(*tokens);
    return {};
}

/// Compares with all, in constant time but for the lengths.
bool Admission::is_token(std::string_view text) const {
    bool found = false;
    for (const auto& token : tokens_) {
        const bool same = token.size() == text.size() &&
                          CRYPTO_memcmp(token.data(), text.data(), text.size()) == 0;
        found = found || same;
    }
    return found;
}

Result<Admitted> Admission::enrol(const Name& host) {
    if (enrolled_.size() >= kMostEnrolled) {
        return Admitted{Admitted::As::Nobody, {}, "no more hosts can enrol at this server"};
    }
    const auto written = append_line(files_.enrolled, host.to_string());
    if (!written) {
        return written.error();
    }
    enrolled_.insert(host);
    return Admitted{Admitted::As::Enrolled, {}, {}};
}

Admitted Admission::by_ticket(const Name& host, const std::vector<Ticket>& tickets,
                              std::chrono::system_clock::time_point now) const {
    Admitted admitted{Admitted::As::Nobody, {}, "neither listed nor with a token or ticket"};
    // In the ticket's own unit: the last date that it can have is none in nanoseconds.
    const auto today = std::chrono::floor<std::chrono::seconds>(now);
    for (const auto& ticket : tickets) {
        // What costs least is asked first.
        if (ticket.guest != host) {
            admitted.why_not = "a ticket is another host's";
        } else if (ticket.expires + kClocks < today) {
            admitted.why_not = "a ticket has expired";
        } else if (const auto issuer = issuer_of(ticket); !issuer || !knows(*issuer)) {
            admitted.why_not = "a ticket's issuer is not admitted";
        } else if (!is_signed(ticket)) {
            // Whoever forges one shall not have the others looked at: that costs much.
            return {Admitted::As::Nobody, {}, "a ticket is not signed by its issuer"};
        } else {
            admitted.as = Admitted::As::Guest;
            admitted.pairs.emplace(ticket.pair, *issuer);
        }
    }
    return admitted;
}

Result<Admitted> Admission::admit(const Name& host, const Hello& hello,
                                  std::chrono::system_clock::time_point now) {
    if (hosts_.contains(host)) {
        return Admitted{Admitted::As::Listed, {}, {}};
    }
    if (enrolled_.contains(host)) {
        return Admitted{Admitted::As::Enrolled, {}, {}};
    }
    if (is_token(hello.enrolment)) {
        return enrol(host);
    }
    auto admitted = by_ticket(host, hello.tickets, now);
    if (!admitted && !hello.enrolment.empty()) {
        admitted.why_not = "the enrolment token is not one of this server's";
    }
    return admitted;
}

}  // namespace mobility::server
