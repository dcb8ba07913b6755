"""k-means: quality against scikit-learn, independence of batch and padding, degenerate input."""

import numpy as np
import pytest
import torch

from distill import kmeans as kmeans_module
from distill.kmeans import kmeans, lloyd, padded_length, plan_groups, seeding, space


def clustered(count, width, generator, clusters=6, spread=1.0, separation=1.5):
    """[count, width] float32 points around `clusters` Gaussian centres, and their true labels."""
    centres = separation * torch.randn(clusters, width, generator=generator)
    labels = torch.arange(count) % clusters
    return centres[labels] + spread * torch.randn(count, width, generator=generator), labels


def batch(problems, length=None, fill=0.0):
    """Pad a list of [n, D] to ([T, length, D], counts, keys)."""
    counts = torch.tensor([len(points) for points in problems])
    points = torch.full((len(problems), length or int(counts.max()), problems[0].shape[1]), fill)
    for row, problem in enumerate(problems):
        points[row, :len(problem)] = problem
    return points, counts, torch.arange(len(problems)) + 1000


def mixed_problems(counts, width=48):
    generator = torch.Generator().manual_seed(7)
    return [clustered(count, width, generator)[0] for count in counts]


def same_bits(one, row, other, other_row, count):
    return (torch.equal(one.centroids_TKD[row], other.centroids_TKD[other_row])
            and torch.equal(one.inertia_T[row], other.inertia_T[other_row])
            and torch.equal(one.labels_TN[row, :count], other.labels_TN[other_row, :count])
            and torch.equal(one.iterations_T[row], other.iterations_T[other_row]))


@pytest.fixture(params=["gram", "points"])
def form(request, monkeypatch):
    """Every problem in one of the two forms, whatever its size."""
    monkeypatch.setattr(space, "prefers_gram", lambda length, width: request.param == "gram")


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_total_inertia_is_within_one_percent_of_scikit_learn():
    cluster = pytest.importorskip("sklearn.cluster")
    problems = mixed_problems([25, 31, 40, 58, 77, 120, 200, 333, 512, 900] * 2, width=64)
    ours = kmeans(*batch(problems), 20).inertia_T.sum().item()
    theirs = sum(cluster.KMeans(20, n_init=1, random_state=0).fit(points.numpy()).inertia_ for points in problems)
    assert ours <= 1.01 * theirs


def test_gram_form_and_point_form_agree(monkeypatch):
    generator = torch.Generator().manual_seed(1)
    problems = [clustered(count, 32, generator, clusters=5, spread=0.3)[0] for count in (30, 90, 200)]
    results = []
    for gram in (True, False):
        monkeypatch.setattr(space, "prefers_gram", lambda length, width: gram)
        results.append(kmeans(*batch(problems), 5))
    assert torch.equal(results[0].labels_TN, results[1].labels_TN)
    torch.testing.assert_close(results[0].inertia_T, results[1].inertia_T, rtol=1e-4, atol=0)
    torch.testing.assert_close(results[0].centroids_TKD, results[1].centroids_TKD, rtol=1e-4, atol=1e-5)


def test_well_separated_clusters_are_recovered_exactly(form):
    points, truth = clustered(120, 24, torch.Generator().manual_seed(2), clusters=6, spread=0.01)
    labels = kmeans(*batch([points]), 6).labels_TN[0]
    assert len({(int(a), int(b)) for a, b in zip(labels, truth)}) == 6 == len(labels.unique())


def test_a_problem_has_the_same_bits_alone_and_in_any_batch_and_padding(threads):
    counts = [21, 24, 25, 33, 40, 70, 150, 24, 23, 22, 300]
    problems = mixed_problems(counts)
    points, _, keys = batch(problems, length=400, fill=float("nan"))
    together = kmeans(points, torch.tensor(counts), keys, 20, restarts=2)
    pair = kmeans(points[6:8, :170], torch.tensor(counts)[6:8], keys[6:8], 20, restarts=2)
    for row, count in enumerate(counts):
        alone = kmeans(problems[row][None], torch.tensor([count]), keys[row:row + 1], 20, restarts=2)
        assert same_bits(alone, 0, together, row, count)
        if row in (6, 7):
            assert same_bits(pair, row - 6, together, row, count)


def test_one_padded_length_gives_the_same_bits_however_many_problems_share_it(form, threads):
    problems = mixed_problems([57, 60, 64, 58, 61] * 4, width=33)
    points, counts, keys = batch(problems)
    together = kmeans(points, counts, keys, 7, restarts=3)
    for size in (1, 2, 3, 11):
        part = kmeans(points[-size:], counts[-size:], keys[-size:], 7, restarts=3)
        assert all(same_bits(part, row, together, len(problems) - size + row, 0) for row in range(size))
        assert torch.equal(part.labels_TN, together.labels_TN[-size:])


def test_small_blocks_change_nothing(monkeypatch):
    points, counts, keys = batch(mixed_problems([57, 60, 64, 58, 61, 30, 31]))
    whole = kmeans(points, counts, keys, 7)
    monkeypatch.setattr(kmeans_module, "_BLOCK_BYTES", 1)
    assert torch.equal(whole.centroids_TKD, kmeans(points, counts, keys, 7).centroids_TKD)


def test_the_order_of_problems_does_not_matter():
    points, counts, keys = batch(mixed_problems([30, 90, 45, 22, 64, 31]))
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    plain, permuted = kmeans(points, counts, keys, 20), kmeans(points[order], counts[order], keys[order], 20)
    assert torch.equal(plain.centroids_TKD[order], permuted.centroids_TKD)
    assert torch.equal(plain.labels_TN[order], permuted.labels_TN)


def test_key_and_seed_decide_the_randomness_and_the_global_generator_does_not():
    points, counts, _ = batch(mixed_problems([60] * 1) * 3)
    keys = torch.tensor([5, 5, 6])
    state = torch.get_rng_state()
    result = kmeans(points, counts, keys, 20)
    assert torch.equal(torch.get_rng_state(), state)
    assert same_bits(result, 0, result, 1, 60)
    assert not torch.equal(result.labels_TN[0], result.labels_TN[2])
    assert not torch.equal(result.labels_TN[0], kmeans(points, counts, keys, 20, seed=1).labels_TN[0])


def test_ten_restarts_find_better_clusters_than_one(form):
    points, counts, keys = batch(mixed_problems([40, 60, 90, 130]))
    one, ten = (kmeans(points, counts, keys, 12, restarts=r).inertia_T for r in (1, 10))
    assert (ten <= one * (1 + 1e-5)).all() and (ten < one * 0.999).any()


def test_the_better_half_of_the_runs_goes_on_after_each_sweep(form):
    (points,) = mixed_problems([120])
    points = (points - points.mean(0))[None]
    labels = torch.randint(0, 12, (1, 8, 120), generator=torch.Generator().manual_seed(3))
    tolerance = torch.zeros(1)
    alone = torch.cat([lloyd.lloyd_runs(space.space_of(points), labels[:, [run]], 12, 300, tolerance).inertia_TR for run in range(8)])
    after = [lloyd.lloyd_runs(space.space_of(points), labels, 12, sweeps, tolerance) for sweeps in (1, 2, 3, 300)]
    assert [runs.labels_TRN.shape[1] for runs in after] == [4, 2, 1, 1]
    first = torch.cat([lloyd.lloyd_runs(space.space_of(points), labels[:, [run]], 12, 1, tolerance).inertia_TR for run in range(8)])
    assert after[0].inertia_TR[0].tolist() == first.flatten().sort().values[:4].tolist()
    assert after[-1].inertia_TR.item() in alone.flatten().tolist()


def test_labels_are_the_nearest_centroids_and_centroids_the_means_of_their_points(form):
    problems = mixed_problems([25, 64, 150])
    result = kmeans(*batch(problems), 10)
    for row, points in enumerate(problems):
        labels, centroids = result.labels_TN[row], result.centroids_TKD[row]
        distances = torch.cdist(points.double(), centroids.double())
        assert torch.equal(distances.argmin(1), labels[:len(points)]) and (labels[len(points):] == -1).all()
        means = torch.stack([points[labels[:len(points)] == cluster].mean(0) for cluster in range(10)])
        torch.testing.assert_close(means, centroids, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(distances.min(1).values.square().sum().float(), result.inertia_T[row])


def test_of_a_large_problem_a_sample_is_searched(monkeypatch):
    points, counts, keys = batch(mixed_problems([700, 900], width=16))
    full = kmeans(points, counts, keys, 5, restarts=6)
    monkeypatch.setattr(kmeans_module, "SEARCHED_PER_CLUSTER", 40)
    sampled = kmeans(points, counts, keys, 5, restarts=6)
    assert not torch.equal(sampled.labels_TN, full.labels_TN)
    assert (sampled.inertia_T <= 1.05 * full.inertia_T).all() and (sampled.iterations_T <= kmeans_module.FULL_SWEEPS).all()
    assert same_bits(sampled, 1, kmeans(points[1:], counts[1:], keys[1:], 5, restarts=6), 0, 900)


def test_a_problem_with_fewer_points_than_a_sample_is_searched_whole(monkeypatch):
    """205 points are padded to 224 rows, more than the 210 of a sample: padding is no point."""
    points, counts, keys = batch(mixed_problems([205], width=16))
    whole = kmeans(points, counts, keys, 5)
    monkeypatch.setattr(kmeans_module, "SEARCHED_PER_CLUSTER", 42)
    assert same_bits(kmeans(points, counts, keys, 5), 0, whole, 0, 205)


def test_sampled_rows_are_different_rising_and_real():
    keys, counts = torch.arange(4), torch.tensor([30, 50, 50, 31])
    rows = seeding.sampled_rows(0, keys, counts, 56, 30)
    assert (rows.diff(dim=1) > 0).all() and (rows < counts[:, None]).all() and rows[0].tolist() == list(range(30))
    assert not torch.equal(rows[1], rows[2]) and not torch.equal(rows, seeding.sampled_rows(1, keys, counts, 56, 30))
    assert torch.equal(rows[1:2], seeding.sampled_rows(0, keys[1:2], counts[1:2], 64, 30))


def test_a_run_stopped_early_still_labels_by_the_returned_centroids():
    points, counts, keys = batch(mixed_problems([400], width=16))
    short, full = kmeans(points, counts, keys, 20, max_iterations=1), kmeans(points, counts, keys, 20)
    assert short.iterations_T.item() == 1 < full.iterations_T.item()
    assert torch.equal(torch.cdist(points[0], short.centroids_TKD[0]).argmin(1), short.labels_TN[0])
    assert full.inertia_T < short.inertia_T


def test_a_large_tolerance_stops_sooner():
    points, counts, keys = batch(mixed_problems([400, 380], width=16))
    loose, tight = kmeans(points, counts, keys, 20, tolerance=10.0), kmeans(points, counts, keys, 20)
    assert (loose.iterations_T < tight.iterations_T).all()


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_all_points_equal_gives_k_equal_centroids(form, scale):
    point = scale * torch.randn(16, generator=torch.Generator().manual_seed(3))
    result = kmeans(*batch([point.repeat(50, 1)]), 20)
    torch.testing.assert_close(result.centroids_TKD[0], point.repeat(20, 1))
    assert result.inertia_T.item() <= 1e-8 * scale ** 2 and result.labels_TN.min() >= 0


def test_fewer_distinct_points_than_clusters_gives_k_finite_centroids_at_points(form):
    distinct = torch.randn(5, 16, generator=torch.Generator().manual_seed(4))
    result = kmeans(*batch([distinct.repeat(10, 1)]), 20, restarts=2)
    assert torch.cdist(result.centroids_TKD[0], distinct).min(1).values.max() < 1e-4
    assert result.inertia_T.item() < 1e-6


def test_as_many_points_as_clusters_gives_each_point_its_own_cluster(form):
    points = torch.randn(20, 16, generator=torch.Generator().manual_seed(5))
    result = kmeans(*batch([points]), 20)
    torch.testing.assert_close(result.centroids_TKD[0][result.labels_TN[0]], points)
    assert len(result.labels_TN[0].unique()) == 20


def test_an_empty_cluster_takes_the_farthest_point_of_a_shared_cluster():
    labels = torch.tensor([[[0, 0, 0, 2, -1]]])
    distance = torch.tensor([[[1.0, 3.0, 2.0, 9.0, 0.0]]])  # point 3 is farther but alone in its cluster
    assert lloyd.without_empty(labels, distance, 4).tolist() == [[[0, 1, 3, 2, -1]]]


def test_one_cluster_is_the_mean_and_no_problem_is_no_result():
    points = mixed_problems([30])[0]
    torch.testing.assert_close(kmeans(*batch([points]), 1).centroids_TKD[0, 0], points.mean(0))
    empty = kmeans(torch.zeros(0, 8, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), 3)
    assert empty.centroids_TKD.shape == (0, 3, 4) and empty.labels_TN.shape == (0, 8)


def test_float16_points_give_the_result_of_the_same_points_in_float32():
    points, counts, keys = batch(mixed_problems([30, 90]))
    half = kmeans(points.half(), counts, keys, 10)
    full = kmeans(points.half().float(), counts, keys, 10)
    assert half.centroids_TKD.dtype == torch.float32 and torch.equal(half.centroids_TKD, full.centroids_TKD)


def test_random_numbers_are_splitmix64():
    def reference(state):
        state = (state + 0x9E3779B97F4A7C15) % 2 ** 64
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) % 2 ** 64
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) % 2 ** 64
        return state ^ (state >> 31)

    states = [0, 1, -3, 2 ** 63 - 1, -2 ** 63]
    assert [value % 2 ** 64 for value in seeding._splitmix64(torch.tensor(states)).tolist()] == [
        reference(state % 2 ** 64) for state in states]


def test_draws_are_uniform_and_differ_by_seed_key_restart_step_and_candidate():
    drawn = torch.stack([seeding.uniform_numbers(seed, torch.arange(5), 3, 20, 4) for seed in (0, 1)])
    assert drawn.min() >= 0 and drawn.max() < 1 and abs(drawn.mean() - 0.5) < 0.02
    assert len(drawn.unique()) == drawn.numel()


def test_groups_partition_the_problems_with_more_points_than_clusters():
    counts = np.array([5, 20, 21, 1000, 30, 22, 500, 21, 19, 31])
    groups = plan_groups(counts, 20, 64, budget_bytes=40_000)
    assert sorted(np.concatenate(groups).tolist()) == [2, 3, 4, 5, 6, 7, 9]
    for group in groups:
        length = {padded_length(count) for count in counts[group]}
        assert len(length) == 1
        assert len(group) == 1 or len(group) * 4 * length.pop() * 64 <= 40_000
    assert [g.tolist() for g in groups] == [g.tolist() for g in plan_groups(counts, 20, 64, budget_bytes=40_000)]
    assert plan_groups(np.array([], dtype=np.int64), 20, 64) == [] == plan_groups(np.array([3]), 20, 64)


def test_padding_wastes_less_than_a_third_and_keeps_rows_aligned():
    assert all(count <= padded_length(count) < 1.34 * count for count in range(21, 3000))
    assert all(padded_length(count) % 8 == 0 for count in range(1, 3000))


@pytest.mark.parametrize("counts, k, options", [([2], 3, {}), ([9], 3, {}), ([4], 0, {}), ([4], 3, {"restarts": 0}),
                                                ([4, 4], 3, {})])
def test_arguments_that_make_no_sense_are_refused(counts, k, options):
    with pytest.raises(ValueError):
        kmeans(torch.zeros(1, 8, 4), torch.tensor(counts), torch.zeros(1, dtype=torch.int64), k, **options)
