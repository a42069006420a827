/* so3k-md: the operators as TorchScript knows them; kernels/build.py reads these schemas too. MIT.
 */

#ifndef SO3K_OPERATORS_H
#define SO3K_OPERATORS_H

namespace So3k::operators {

constexpr auto GEOMETRY =
    "geometry(Tensor vectors, Tensor idx_i, Tensor idx_j, Tensor[] steps, int[] degrees, "
    "float direction) -> (Tensor, Tensor, Tensor, Tensor, Tensor)";
constexpr auto ATTEND =
    "attend(Tensor x, Tensor chi, Tensor x_src, Tensor chi_src, Tensor r, Tensor cut, Tensor ylm, "
    "Tensor idx_i, Tensor idx_j, Tensor back, Tensor query, Tensor query_bias, Tensor key, "
    "Tensor key_bias, Tensor value, Tensor value_bias, Tensor transposed, Tensor hidden, "
    "Tensor hidden_bias, Tensor out, Tensor out_transposed, Tensor table, float cutoff, "
    "float norm_eps, int heads, int[] degrees, bool squared) -> (Tensor, Tensor)";
constexpr auto SPHC_ATTEND =
    "sphc_attend(Tensor query, Tensor key, Tensor chi, Tensor chi_src, Tensor r, Tensor r_src, "
    "Tensor members, Tensor first, Tensor size, Tensor own, Tensor hidden, Tensor hidden_bias, "
    "Tensor out, Tensor out_transposed, Tensor shift, Tensor table, Tensor[] steps, float cutoff, "
    "float norm_eps, float temperature, float kappa, float direction, int[] degrees, int p, "
    "bool squared) -> Tensor";
constexpr auto UPDATE =
    "update(Tensor x, Tensor chi, Tensor norm1_weight, Tensor norm1_bias, Tensor mlp_first, "
    "Tensor mlp_first_bias, Tensor mlp_second, Tensor mlp_second_bias, Tensor chi_scale, "
    "Tensor linear, Tensor linear_bias, Tensor mixing, Tensor left, Tensor right, "
    "Tensor mixed_linear, Tensor mixed_bias, Tensor norm2_weight, Tensor norm2_bias, "
    "float norm_eps, int[] degrees, bool squared) -> (Tensor, Tensor)";
constexpr auto LONG_PAIRS =
    "long_pairs(Tensor vectors, Tensor idx_i, Tensor idx_j, Tensor species, Tensor q, Tensor h, "
    "Tensor alpha, Tensor v, bool coulomb, float cutoff, float taper, float ke, float bohr, "
    "float hartree) -> (Tensor, Tensor, Tensor, Tensor)";
constexpr auto TALLY = "tally(Tensor vectors, Tensor gradients, Tensor idx_i, Tensor idx_j, "
                       "Tensor frame, int n_frames) -> (Tensor, Tensor)";
constexpr auto NEIGHBOR_LISTS =
    "neighbor_lists(Tensor positions, Tensor cell, bool periodic, float near, float far, "
    "float skin, int pairs, Tensor(a!) state, Tensor(b!) listed, Tensor(c!) length, "
    "Tensor(d!) close, Tensor(e!) rows) -> (Tensor, Tensor, Tensor, Tensor)";
constexpr auto GPU_FAULT = "gpu_fault() -> str";
constexpr auto GPU_VERSION = "gpu_version() -> str";
constexpr auto RECALL = "recall(Tensor x, Tensor weight, str key) -> Tensor[]";
constexpr auto KEEP = "keep(Tensor weight, str key, Tensor[] made) -> Tensor[]";
constexpr auto CUTOFF = "cutoff(Tensor r, float cutoff, int p) -> Tensor";
constexpr auto HEADS =
    "heads(Tensor x, Tensor species, Tensor energy_hidden, Tensor energy_hidden_bias, "
    "Tensor energy_out, Tensor energy_out_bias, Tensor energy_scale, Tensor energy_shift, "
    "Tensor charge_hidden, Tensor charge_hidden_bias, Tensor charge_out, Tensor charge_out_bias, "
    "Tensor charge_table, Tensor ratio_hidden, Tensor ratio_hidden_bias, Tensor ratio_out, "
    "Tensor ratio_out_bias, Tensor ratio_query, Tensor ratio_shift, float ratio_scale) "
    "-> (Tensor, Tensor, Tensor)";
constexpr auto REPULSION =
    "repulsion(Tensor vectors, Tensor idx_i, Tensor idx_j, Tensor species, Tensor decays, "
    "Tensor shares, Tensor power, Tensor per_length, float reach, float ke, float cutoff, int p, "
    "int n_centres) -> Tensor";
constexpr auto OPEN_COULOMB = "open_coulomb(Tensor q, Tensor r, int first, int last, float ke, "
                              "float sigma) -> (Tensor, Tensor, Tensor)";
constexpr auto CONSERVE = "conserve(Tensor values, Tensor total, Tensor fragment) -> Tensor";
constexpr auto WAVE_SUMS = "wave_sums(Tensor q, Tensor r, Tensor cell, float k_max, float ke, "
                           "float sigma) -> Tensor";
constexpr auto WAVE_READ =
    "wave_read(Tensor q, Tensor r, Tensor cell, Tensor sums, float k_max, float ke, float sigma) "
    "-> (Tensor, Tensor, Tensor, Tensor)";

}    // namespace So3k::operators

#endif
