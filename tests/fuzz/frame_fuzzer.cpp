// SPDX-License-Identifier: GPL-2.0-or-later
// Feeds a stream of arbitrary bytes, in arbitrary pieces, to FrameReader: it gives
// out the same messages whatever the pieces, and never holds more than a frame
// beside what it was given last. The first byte says how large the pieces are.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>
#include <vector>

#include "libmobility/frame.hpp"

namespace {

struct Found {
    std::vector<std::string> messages;
    bool failed = false;
    bool operator==(const Found&) const = default;
};

/// Reads on until there is no more, or an error.
void drain(mobility::FrameReader& reader, Found& found) {
    for (;;) {
        auto message = reader.next();
        if (!message) {
            found.failed = true;
            return;
        }
        if (!*message) {
            return;
        }
        found.messages.push_back(**message);
    }
}

Found read(std::span<const std::byte> stream, std::size_t piece) {
    mobility::FrameReader reader;
    Found found;
    while (!stream.empty() && !found.failed) {
        const auto taken = stream.first(std::min(piece, stream.size()));
        stream = stream.subspan(taken.size());
        reader.take(taken);
        drain(reader, found);
        if (!found.failed && reader.held() >= mobility::kFrameHead + mobility::kMaxFrame) {
            std::abort();
        }
    }
    return found;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) {
        return 0;
    }
    const auto stream = std::as_bytes(std::span(data + 1, size - 1));
    const auto pieces = read(stream, std::size_t{data[0]} + 1);
    if (pieces != read(stream, size)) {
        std::abort();
    }
    for (const auto& message : pieces.messages) {
        if (!mobility::frame(message)) {
            std::abort();
        }
    }
    return 0;
}
