package main

// What is usual, and the defences: schemas/meaning.md, "What is usual" and "Defences".

import (
	"math"
	"math/big"
	"sort"
)

const weightOne = 65536

// Usual is what a barrier says is usual; 0 for what is not known.
type Usual struct {
	Norm   float64 `json:"norm"`
	Cosine int64   `json:"cosine"`
	Share  int64   `json:"share"`
}

// Histogram is (bucket, count), ascending.
type Histogram [][2]int64

// Histograms are a window's, or pools of them.
type Histograms struct {
	Norms   Histogram `json:"norms"`
	Cosines Histogram `json:"cosines"`
	Shares  Histogram `json:"shares"`
}

func normBucket(norm float64) int64 { return int64(math.Float64bits(norm) >> 49) }

func middleOf(bucket int64) float64 {
	if bucket == 0 {
		return 0
	}
	return math.Float64frombits(uint64(bucket)<<49 | 1<<48)
}

func cosineBucket(cosine float64) int64 { return int64(math.Floor(64 * cosine)) }

func shareCount(own int64) int64 { return 840 / min64(own, 8) }

// tally is the open window's histograms.
type tally struct{ norms, cosines, shares map[int64]int64 }

func newTally() *tally { return &tally{map[int64]int64{}, map[int64]int64{}, map[int64]int64{}} }

// normTimes is how many times a norm counts among those that are usual.
func (policy *Policy) normTimes(norm, clipTo float64) int64 {
	if policy.Defence.UsualNormBy != "squares" {
		return 1
	}
	parts := 8.0
	if norm < clipTo {
		parts = math.Max(1, math.Floor(float64(8*float64(norm/clipTo))+0.5))
	}
	return int64(parts * parts)
}

// add counts an accepted update, its norm so many times; own is 0 where no shares are counted.
func (one *tally) add(norm, cosine float64, guided bool, own, times int64) {
	count := shareCount(max64(1, own))
	if norm > 0 {
		one.norms[normBucket(norm)] += count * times
	}
	if guided {
		one.cosines[cosineBucket(cosine)] += count
	}
	if own > 0 {
		one.shares[own] += count
	}
}

func histogramOf(counts map[int64]int64) Histogram {
	found := Histogram{}
	for _, bucket := range sortedVersions(counts) {
		if counts[bucket] != 0 {
			found = append(found, [2]int64{bucket, counts[bucket]})
		}
	}
	return found
}

func (one *tally) closed() Histograms {
	return Histograms{histogramOf(one.norms), histogramOf(one.cosines), histogramOf(one.shares)}
}

func (one Histogram) records() []any {
	found := []any{}
	for _, pair := range one {
		found = append(found, Record{"bucket": pair[0], "count": pair[1]})
	}
	return found
}

// histogramIn reads the field of an aggregate.
func histogramIn(field any) Histogram {
	found := Histogram{}
	for _, one := range field.([]any) {
		record := one.(Record)
		found = append(found, [2]int64{record["bucket"].(int64), record["count"].(int64)})
	}
	return found
}

// median is the least bucket at which half of all is counted; 0 where nothing is.
func (one Histogram) median() int64 {
	var total, counted int64
	for _, pair := range one {
		total += pair[1]
	}
	for _, pair := range one {
		if counted += pair[1]; counted >= (total+1)/2 {
			return pair[0]
		}
	}
	return 0
}

func pooled(before Histogram, windows ...Histogram) Histogram {
	counts := map[int64]int64{}
	for _, pair := range before {
		counts[pair[0]] = 3 * pair[1] / 4
	}
	for _, one := range windows {
		for _, pair := range one {
			counts[pair[0]] += 256 * pair[1]
		}
	}
	return histogramOf(counts)
}

func (one Histograms) after(windows []Histograms) Histograms {
	var norms, cosines, shares []Histogram
	for _, each := range windows {
		norms, cosines, shares = append(norms, each.Norms), append(cosines, each.Cosines), append(shares, each.Shares)
	}
	return Histograms{pooled(one.Norms, norms...), pooled(one.Cosines, cosines...), pooled(one.Shares, shares...)}
}

func (one Histograms) usual() Usual {
	return Usual{middleOf(one.Norms.median()), max64(0, one.Cosines.median()), one.Shares.median()}
}

// shown is what a defence is shown of an update.
type shown struct {
	norm, cosine float64
	guided       bool // compared with a guide
	share        int64
	history      []float64
}

// judged is what it says: a refusal, or how much is left. clipTo is infinite where only the policy clips.
type judged struct {
	why        *Why
	deviations float64
	clipTo     float64
	factor     int64
}

func (policy *Policy) judge(one shown, usual Usual) judged {
	defence := policy.Defence
	counts := judged{clipTo: math.Inf(1), factor: weightOne}
	refuse := func(code int64, values ...any) judged {
		because := why(code, values...)
		return judged{why: &because, deviations: counts.deviations}
	}
	switch defence.Kind {
	case "none":
		return counts
	case "peers":
		if len(one.history) >= defence.HistoryUpdatesMin {
			counts.deviations = deviations(one.norm, one.history)
		}
		if counts.deviations > defence.DeviationsMax {
			return refuse(323, one.norm, counts.deviations, defence.DeviationsMax)
		}
		if one.cosine < defence.CosineMin {
			return refuse(324, one.cosine, defence.CosineMin)
		}
		return counts
	}
	if one.norm == 0 {
		return refuse(328)
	}
	if usual.Norm > 0 {
		floor := float64(defence.NormClipFloor * policy.Updates.NormClip)
		counts.clipTo = math.Max(floor, float64(defence.NormClipMedians*usual.Norm))
	}
	if defence.Kind != "guide" {
		return counts
	}
	counts.factor = fairness(one.share, usual.Share)
	if !one.guided {
		return counts
	}
	least := defence.GuideCosineMin
	if one.cosine < least {
		return refuse(329, one.cosine, least)
	}
	counts.factor = max64(1, agreement(one.cosine, least, usual.Cosine)*counts.factor/weightOne)
	return counts
}

// fairness is what a device's share leaves, in 1/65536.
func fairness(own, usual int64) int64 {
	switch {
	case usual == 0 || usual >= own:
		return weightOne
	case usual < 0:
		return 0 // whoever counts at all weighs 1 in the end
	default:
		return weightOne * usual / own
	}
}

// agreement is what a cosine of at least “least“ leaves, in 1/65536.
func agreement(cosine, least float64, usual int64) int64 {
	above, _ := big.NewFloat(float64(weightOne * float64(cosine-least))).Int(nil)
	full, _ := big.NewFloat(float64(weightOne * float64(float64(usual)/64-least))).Int(nil)
	if full.Sign() <= 0 {
		return weightOne
	}
	above.Mul(above, big.NewInt(weightOne)).Quo(above, full)
	if !above.IsInt64() || above.Int64() > weightOne {
		return weightOne
	}
	return above.Int64()
}

// weightLeft is a weight, and of it what a defence leaves.
func weightLeft(weight, factor int64) int64 {
	if factor == weightOne {
		return weight
	}
	return max64(1, weight*factor/weightOne)
}

func clipOf(norm, normClip, clipTo float64) (float64, float64) {
	clipTo = math.Min(normClip, clipTo)
	if norm > clipTo {
		return clipTo / norm, clipTo
	}
	return 1, clipTo
}

func sortedVersions[V any](values map[int64]V) []int64 {
	keys := make([]int64, 0, len(values))
	for key := range values {
		keys = append(keys, key)
	}
	sort.Slice(keys, func(i, j int) bool { return keys[i] < keys[j] })
	return keys
}
