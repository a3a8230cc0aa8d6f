// The backend of a device: a thread that serves rings in guest memory, which it reaches through
// grants only. What the device is, a class beside says.
#pragma once
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>

#include "fault.h"
#include "host/embedded/device_layout.h"

namespace dormouse::embedded {

class Domain;

// How badly it behaves: as backends on a loaded machine do, or worse.
struct BackendBehaviour {
  enum Holds : uint8_t {
    kNothing,
    kRequests,  // takes none
    kAnswers,   // carries them out, and does not answer
  };
  Holds holds = kNothing;
  uint64_t delay_us = 0;  // between carrying out and answering
  // Of a disk: the order in which requests are carried out. Of a network: which frames are lost,
  // come twice or overtake others. 0 = none of it.
  uint64_t seed = 0;
  bool never_closes = false;
};

class Backend {
 public:
  // `thread_name`: at most 15 characters.
  Backend(Domain& domain, uint32_t port, const char* thread_name)
      : domain_(domain), port_(port), thread_name_(thread_name) {}
  // Who derives from it ends it.
  virtual ~Backend() = default;

  // Asks to close, which is done once what was taken is answered: then it is attached no more.
  void ask_to_close();
  // Takes that back where it is not done yet.
  void keep_open();
  // Ends the thread, whatever it is at, and lets go of what is behind the device.
  void end();
  // The frontend's event.
  void kick();
  void behave(const BackendBehaviour& how);

  bool attached();
  XenbusState state();
  uint32_t port() const { return port_; }

  // Held by a vCPU that works on the frontend's memory; no vCPU is ever stopped with it.
  std::mutex front_lock;

 protected:
  // Waits for the thread of the frontend before.
  void join();
  // A frontend came: serves it.
  void start();
  // Takes what was asked and answers it. False for a ring that cannot be, or when it is to end.
  virtual bool serve_once() = 0;
  virtual void let_go() {}
  bool wait_to_answer();
  uint64_t seed();
  // A number of the seed's, another one each time.
  uint64_t draw(uint64_t seed);
  void notify_guest();

  Domain& domain_;

 private:
  void serve();
  bool wait_for_work();

  const uint32_t port_;
  const char* const thread_name_;
  uint64_t draws_ = 0;

  std::mutex lock_;  // guards what follows
  std::condition_variable changed_;
  bool attached_ = false, closing_ = false, ending_ = false, work_ = false;
  BackendBehaviour how_;
  std::thread thread_;
};

}  // namespace dormouse::embedded
