// SPDX-License-Identifier: GPL-2.0-or-later
// What all that uses OpenSSL needs: owners of its objects, and its complaints.
#pragma once

#include <openssl/err.h>

#include <string>

namespace mobility {

/// Deleter that calls one of OpenSSL's functions, as FreedBy<SSL_free>.
template <auto free>
struct FreedBy {
    template <typename Object>
    void operator()(Object* object) const {
        free(object);
    }
};

/// The last thing OpenSSL has complained about in this thread; empties its queue.
inline std::string complaint() {
    const auto code = ERR_peek_last_error();
    const char* reason = code != 0 ? ERR_reason_error_string(code) : nullptr;
    ERR_clear_error();
    return reason != nullptr ? reason : "no reason given";
}

}  // namespace mobility
