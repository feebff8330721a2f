// SPDX-License-Identifier: GPL-2.0-or-later
// The first words with a mobility server.
#pragma once

#include "libmobility/channel.hpp"
#include "libmobility/message.hpp"

namespace mobility::client {

/// Says Hello, as this program, and hears whether the host is welcome. EACCES, with the
/// server's reason, if it is not.
Awaitable<Welcome> greet(Channel& channel, Hello hello);

}  // namespace mobility::client
