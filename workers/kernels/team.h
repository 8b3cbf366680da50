// A few threads that share the pieces of one job after another.
//
// Pieces are claimed, not assigned, and a job ends when its pieces are done: a thread that the
// system has put aside holds up the others only if it was in the middle of a piece. Between jobs
// helpers spin for some tens of microseconds, then sleep, so that an idle engine costs nothing.
#pragma once
#include <immintrin.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

class Team {
  public:
    explicit Team(int threads) {
        for (int i = 1; i < threads; i++) helpers_.emplace_back([this, i] { help(i); });
    }

    ~Team() {
        ticket_.store(STOP, std::memory_order_release);
        ticket_.notify_all();
        for (auto& helper : helpers_) helper.join();
    }

    int threads() const { return static_cast<int>(helpers_.size()) + 1; }

    // work(first, last, thread) for ranges that together are [0, count), each `grain` long at
    // least. Returns when all is done. Only one thread may call it at a time.
    template <typename Work>
    void share(int count, int grain, const Work& work) {
        const int pieces_wanted = helpers_.empty() ? 1 : threads() * PIECES_PER_THREAD;
        const int pieces = std::min({(count + grain - 1) / grain, pieces_wanted, PIECES_MAX});
        if (pieces <= 1) {
            if (count > 0) work(0, count, 0);
            return;
        }
        const auto piece = [&](int index, int thread) {
            work(static_cast<int>(int64_t{count} * index / pieces),
                 static_cast<int>(int64_t{count} * (index + 1) / pieces), thread);
        };
        context_ = &piece;
        run_ = [](const void* context, int index, int thread) {
            (*static_cast<const decltype(piece)*>(context))(index, thread);
        };
        done_.store(0, std::memory_order_relaxed);
        epoch_++;
        ticket_.store(make_ticket(epoch_, 0, pieces), std::memory_order_release);
        ticket_.notify_all();
        claim(0);
        for (int spins = 0; done_.load(std::memory_order_acquire) < pieces; spins++) {
            if (spins < SPINS) _mm_pause();
            else std::this_thread::yield();
        }
    }

  private:
    static constexpr int PIECES_PER_THREAD = 4;
    static constexpr int PIECES_MAX = 1 << 12;
    static constexpr int SPINS = 2000;
    static constexpr uint64_t STOP = ~uint64_t{0};

    // The job's number, the next free piece, the number of pieces: read and claimed as one word,
    // so that a late thread can never take a piece of a job that has ended.
    static uint64_t make_ticket(uint32_t epoch, int next, int pieces) {
        return (uint64_t{epoch} << 32) | (uint64_t(next) << 16) | uint64_t(pieces);
    }

    // Works until no piece is free; the ticket that said so.
    uint64_t claim(int thread) {
        uint64_t ticket = ticket_.load(std::memory_order_acquire);
        while (ticket != STOP && ((ticket >> 16) & 0xffff) < (ticket & 0xffff)) {
            const uint64_t taken = ticket + (1u << 16);
            if (!ticket_.compare_exchange_weak(ticket, taken, std::memory_order_acq_rel)) continue;
            run_(context_, int((ticket >> 16) & 0xffff), thread);
            done_.fetch_add(1, std::memory_order_release);
            ticket = ticket_.load(std::memory_order_acquire);
        }
        return ticket;
    }

    void help(int thread) {
        uint64_t seen = 0;
        for (;;) {
            uint64_t ticket = ticket_.load(std::memory_order_acquire);
            for (int spins = 0; ticket == seen && spins < SPINS; spins++) {
                _mm_pause();
                ticket = ticket_.load(std::memory_order_acquire);
            }
            if (ticket == seen) ticket_.wait(seen, std::memory_order_acquire);
            seen = claim(thread);
            if (seen == STOP) return;
        }
    }

    std::atomic<uint64_t> ticket_{0};
    std::atomic<int> done_{0};
    uint32_t epoch_ = 0;
    const void* context_ = nullptr;
    void (*run_)(const void*, int, int) = nullptr;
    std::vector<std::thread> helpers_;
};
