/* so3k-md: the switching function between two distances, for CPUs and GPUs. MIT. */

#ifndef SO3K_SWITCHING_H
#define SO3K_SWITCHING_H

#include "everywhere.h"

namespace So3k {

/// w(r) from 1 at `on` to 0 at `off`, and its derivative; see physics/switching.py.
template <typename T> SO3K_EVERYWHERE void switched(T r, T on, T off, T &w, T &dw)
{
  const T per = 1 / (off - on);
  const T s = min(max((r - on) * per, T(0.015625)), T(0.984375));
  const T up = 1 / s, down = 1 / (1 - s);
  w = 1 / (1 + exp(down - up));
  dw = w * (w - 1) * (up * up + down * down) * per;
}

}    // namespace So3k

#endif
