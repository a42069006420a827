/* so3k-md: formulas that host and GPU share. MIT. */

#ifndef SO3K_EVERYWHERE_H
#define SO3K_EVERYWHERE_H

#ifdef __CUDACC_RTC__
#define SO3K_EVERYWHERE inline __device__
#else
#include <algorithm>
#include <cmath>
#define SO3K_EVERYWHERE inline
#endif

namespace So3k {

#ifndef __CUDACC_RTC__
// in the precision of their arguments
using std::erf;
using std::exp;
using std::max;
using std::min;
using std::sqrt;
#endif

}    // namespace So3k

#endif
