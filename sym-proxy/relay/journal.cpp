// SPDX-License-Identifier: GPL-2.0-or-later
#include "journal.hpp"

#include <bpf/bpf.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>

namespace mobility::proxy {

namespace {

using boost::asio::ip::address_v6;
using tcpmigrate::make_error;

// The layout of the map: bytes in the order of the host, which never leaves it. Another
// layout has to have another name.
constexpr const char* kMapName = "relays_1";

struct RawEnd {
    std::array<std::uint8_t, Name::kSize> host;
    std::uint32_t token;
    Place inner;
    Place place;  ///< port 0: not known
    std::array<std::uint8_t, 12> syn_options;
    std::uint32_t syn_options_length;
};

struct RawRecord {
    std::array<RawEnd, 2> ends;
};

RawEnd raw(const RecordedEnd& end) {
    RawEnd out{};
    std::ranges::copy(end.host.bytes(), out.host.begin());
    out.token = end.token;
    out.inner = end.inner;
    out.place = end.place.value_or(Place());
    const auto options = end.syn_options.bytes();
    out.syn_options_length = static_cast<std::uint32_t>(options.size());
    std::ranges::copy(options, out.syn_options.begin());
    return out;
}

RecordedEnd recorded(const RawEnd& raw) {
    RecordedEnd out{Name(raw.host), raw.token, raw.inner, {}, {}};
    if (raw.place.port() != 0) {
        out.place = raw.place;
    }
    const auto length = std::min<std::size_t>(raw.syn_options_length, raw.syn_options.size());
    out.syn_options = View(raw.syn_options).first(length);
    return out;
}

static_assert(sizeof(Place) == 18);  // a key: the kernel compares bytes

class BpfJournal : public Journal {
  public:
    explicit BpfJournal(int fd) : fd_(fd) {}
    ~BpfJournal() override { ::close(fd_); }
    BpfJournal(const BpfJournal&) = delete;
    BpfJournal& operator=(const BpfJournal&) = delete;

    Result<void> put(const Record& record) override {
        const Place key = record.proxy;
        const RawRecord value{{raw(record.ends[0]), raw(record.ends[1])}};
        if (bpf_map_update_elem(fd_, &key, &value, BPF_ANY) != 0) {
            return make_error(errno, "cannot record a relay");
        }
        return {};
    }

    void remove(const Endpoint& proxy) override {
        const Place key = proxy;
        static_cast<void>(bpf_map_delete_elem(fd_, &key));
    }

    [[nodiscard]] std::optional<Record> get(const Endpoint& proxy) const override {
        return look_up(proxy);
    }

    [[nodiscard]] std::vector<Record> all() const override {
        std::vector<Record> out;
        Place key;
        const void* before = nullptr;
        while (bpf_map_get_next_key(fd_, before, &key) == 0) {
            if (auto record = look_up(key)) {
                out.push_back(std::move(*record));
            }
            before = &key;
        }
        return out;
    }

  private:
    [[nodiscard]] std::optional<Record> look_up(const Place& key) const {
        RawRecord value{};
        if (bpf_map_lookup_elem(fd_, &key, &value) != 0) {
            return {};
        }
        return Record{key, {recorded(value.ends[0]), recorded(value.ends[1])}};
    }

    int fd_;
};

}  // namespace

Place::Place(const Endpoint& endpoint) : port_(endpoint.port) {
    const auto& ip = endpoint.address;
    address_ =
        (ip.is_v4() ? boost::asio::ip::make_address_v6(boost::asio::ip::v4_mapped, ip.to_v4())
                    : ip.to_v6())
            .to_bytes();
}

Place::operator Endpoint() const {
    const address_v6 v6(address_);
    if (v6.is_v4_mapped()) {
        return {boost::asio::ip::make_address_v4(boost::asio::ip::v4_mapped, v6), port_};
    }
    return {v6, port_};
}

SynOptions::SynOptions(View bytes)
    : size_(static_cast<std::uint8_t>(std::min(bytes.size(), kMost))) {
    std::copy_n(bytes.begin(), size_, bytes_.begin());
}

Result<std::unique_ptr<Journal>> Journal::open(const std::string& pins, std::size_t most) {
    const auto file = pins + "/" + kMapName;
    int fd = bpf_obj_get(file.c_str());
    if (fd < 0) {
        // All memory at once: one by one it may not be there when many are put in a moment.
        fd = bpf_map_create(BPF_MAP_TYPE_HASH, kMapName, sizeof(Place), sizeof(RawRecord),
                            static_cast<std::uint32_t>(most), nullptr);
        if (fd < 0) {
            return make_error(errno, "cannot make the map of relays");
        }
        std::error_code ignored;  // bpf_obj_pin says what is wrong
        std::filesystem::create_directories(pins, ignored);
        if (bpf_obj_pin(fd, file.c_str()) != 0) {
            const int code = errno;
            ::close(fd);
            return make_error(code, "cannot pin " + file + ": is bpffs mounted there?");
        }
    }
    return std::unique_ptr<Journal>(std::make_unique<BpfJournal>(fd));
}

void Journal::unpin(const std::string& pins) {
    std::error_code ignored;
    std::filesystem::remove(pins + "/" + kMapName, ignored);
}

}  // namespace mobility::proxy
