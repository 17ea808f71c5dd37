package main

// Buckets, and how a version's become one sum: schemas/meaning.md, "Buckets" and "Merges".

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
	"sort"
)

const (
	bucketDomain  = "fluvial/bucket/v1"
	leastBuckets  = 3 // of fewer no merge can tell which is odd
	medianLeast   = 1e-6
	mergedSumsMax = 1 << 62
)

// Merge is a policy's section of that name.
type Merge struct {
	Kind       string `json:"kind"`
	Buckets    int64  `json:"buckets"`
	Byzantine  int64  `json:"byzantine"`
	Iterations int64  `json:"iterations"`
}

// isSound is what keys have to be to each other: whoever adds has one bucket, the others can tell which are odd.
func (rule Merge) isSound() bool {
	if rule.Kind == "mean" {
		return rule.Buckets == 1 && rule.Byzantine == 0
	}
	return rule.Buckets >= leastBuckets && rule.Byzantine <= (rule.Buckets-3)/2
}

// bucketOf is where a device's updates count while the newest version has that model.
func bucketOf(model, device string, buckets int64) int64 {
	seen := sha256.Sum256([]byte(bucketDomain + "\x00" + model + "\x00" + device))
	return int64(binary.BigEndian.Uint64(seen[:8]) % uint64(buckets))
}

// bucketWeights are what the updates of each bucket of a window weigh; before RegionalAggregate v3 it is one bucket.
func (one *Window) bucketWeights() []int64 {
	said, there := one.Record["buckets"]
	if !there {
		return []int64{one.number("weight_total")}
	}
	var found []int64
	for _, each := range said.([]any) {
		found = append(found, each.(Record)["weight"].(int64))
	}
	return found
}

// Bucket is what a version's windows of one number of buckets hold in one of them, after lateness.
type Bucket struct {
	sums   []int64
	weight int64
}

// combined are the sums that the step is made of. Windows of several numbers of buckets are added.
func (total *Total) combined(rule Merge) []int64 {
	var kept []Bucket
	whole := make([]int64, total.size)
	for _, buckets := range total.buckets {
		kept = nil
		for _, one := range buckets {
			for i, sum := range one.sums {
				whole[i] += sum
			}
			if one.weight > 0 {
				kept = append(kept, one)
			}
		}
	}
	if len(total.buckets) != 1 || len(kept) < leastBuckets || rule.Kind == "" || rule.Kind == "mean" {
		return whole
	}
	return mixed(kept, coefficients(rule, kept))
}

// mixed weighs each bucket's mean by its coefficient.
func mixed(kept []Bucket, c []float64) []int64 {
	factors, all := make([]float64, len(kept)), float64(weightOf(kept))
	for b, one := range kept {
		factors[b] = float64(c[b]*all) / float64(one.weight)
	}
	made := make([]int64, len(kept[0].sums))
	for i := range made {
		total := 0.0
		for b, one := range kept {
			total += float64(factors[b] * float64(one.sums[i]))
		}
		made[i] = int64(math.RoundToEven(math.Max(-mergedSumsMax, math.Min(mergedSumsMax, total))))
	}
	return made
}

func weightOf(buckets []Bucket) int64 {
	var total int64
	for _, one := range buckets {
		total += one.weight
	}
	return total
}

// coefficients are what each bucket's mean counts; the buckets weigh something, and are three or more.
func coefficients(rule Merge, kept []Bucket) []float64 {
	n, g := int64(len(kept)), gramOf(kept)
	f := (n - 3) / 2
	if rule.Byzantine > 0 && n >= 2*rule.Byzantine+3 {
		f = rule.Byzantine
	}
	switch rule.Kind {
	case "geometric_median":
		p, all := make([]float64, n), float64(weightOf(kept))
		for b, one := range kept {
			p[b] = float64(one.weight) / all
		}
		return medianOf(g, p, rule.Iterations)
	case "krum":
		return krum(g, kept, f)
	case "mixing":
		return mixing(g, f, rule.Iterations)
	default:
		panic("no such merge: " + rule.Kind)
	}
}

func gramOf(kept []Bucket) [][]float64 {
	g := make([][]float64, len(kept))
	for a := range kept {
		g[a] = make([]float64, len(kept))
	}
	for a, one := range kept {
		for b := a; b < len(kept); b++ {
			product := 0.0
			for i, sum := range one.sums {
				product += float64(float64(sum) * float64(kept[b].sums[i]))
			}
			g[a][b] = product / float64(float64(one.weight)*float64(kept[b].weight))
			g[b][a] = g[a][b]
		}
	}
	return g
}

func apart(g [][]float64, a, b int) float64 {
	if a == b {
		return 0
	}
	return math.Max(0, (g[a][a]+g[b][b])-float64(2*g[a][b]))
}

// medianOf is the smoothed geometric median of vectors with these inner products and weights.
func medianOf(h [][]float64, p []float64, iterations int64) []float64 {
	spread := 0.0
	for b := range p {
		spread += float64(p[b] * h[b][b])
	}
	least := float64(medianLeast * math.Sqrt(math.Max(0, spread)))
	c := append([]float64{}, p...)
	if least == 0 {
		return c
	}
	for ; iterations > 0; iterations-- {
		s, z, whole := make([]float64, len(p)), 0.0, 0.0
		for b := range p {
			for a := range p {
				s[b] += float64(c[a] * h[a][b])
			}
			z += float64(c[b] * s[b])
		}
		beta := make([]float64, len(p))
		for b := range p {
			away := math.Sqrt(math.Max(0, (h[b][b]-float64(2*s[b]))+z))
			beta[b] = p[b] / math.Max(least, away)
			whole += beta[b]
		}
		for b := range p {
			c[b] = beta[b] / whole
		}
	}
	return c
}

// ranked gives the indices of values, the least first, of equals the first.
func ranked(values []float64) []int {
	order := make([]int, len(values))
	for i := range order {
		order[i] = i
	}
	sort.SliceStable(order, func(i, j int) bool { return values[order[i]] < values[order[j]] })
	return order
}

func krum(g [][]float64, kept []Bucket, f int64) []float64 {
	n := len(kept)
	scores := make([]float64, n)
	for b := range kept {
		var others []float64
		for a := range kept {
			if a != b {
				others = append(others, apart(g, b, a))
			}
		}
		sort.Float64s(others)
		for _, one := range others[:n-int(f)-2] {
			scores[b] += one
		}
	}
	chosen := ranked(scores)[:n-int(f)]
	var all int64
	for _, b := range chosen {
		all += kept[b].weight
	}
	c := make([]float64, n)
	for _, b := range chosen {
		c[b] = float64(kept[b].weight) / float64(all)
	}
	return c
}

func mixing(g [][]float64, f, iterations int64) []float64 {
	n := len(g)
	many := n - int(f)
	near := make([][]int, n)
	for b := range g {
		distances := make([]float64, n)
		for a := range g {
			distances[a] = apart(g, b, a)
		}
		distances[b] = -1 // itself first
		near[b] = ranked(distances)[:many]
		sort.Ints(near[b])
	}
	h, p := make([][]float64, n), make([]float64, n)
	for b := range g {
		h[b], p[b] = make([]float64, n), 1/float64(n)
		for c := range g {
			total := 0.0
			for _, a := range near[b] {
				row := 0.0
				for _, e := range near[c] {
					row += g[a][e]
				}
				total += row
			}
			h[b][c] = total / float64(many*many)
		}
	}
	c := make([]float64, n)
	for b, weight := range medianOf(h, p, iterations) {
		for _, a := range near[b] {
			c[a] += weight / float64(many)
		}
	}
	return c
}
