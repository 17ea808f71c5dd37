package main

// What came with policy v6: control variates, models that are mixed, cohorts: schemas/meaning.md.

import (
	"math"
	"regexp"
	"strings"
)

// Control is a policy's section of that name.
type Control struct {
	Devices  int64   `json:"devices"`
	NormClip float64 `json:"norm_clip"`
}

// Edges is a policy's section of that name.
type Edges struct {
	UpdatesMax int64 `json:"updates_max"`
}

const (
	controlPrefix = "control:"
	cohortPrefix  = "urn:fluvial:cohort:"
	cohortsMax    = 64
)

// devicesBeforeV6 are those of a policy that has no section "control".
const devicesBeforeV6 = 1000

var cohortPattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9_-]{0,30}[a-z0-9])?$`)

// varies says whether the policy's format knows control variates, bases of windows, mixing, cohorts and edges.
func (policy *Policy) varies() bool { return formatNumbers[policy.Format] >= 6 }

// variesSoundly is what the keys of v6 have to be to each other.
func (policy *Policy) variesSoundly() bool {
	chosen := policy.Selection
	most := chosen.Share
	for cohort, share := range chosen.Cohorts {
		if !cohortPattern.MatchString(cohort) || share < 0 || share > 1 {
			return false
		}
		most = math.Max(most, share)
	}
	return most > 0 && policy.Buffer.SecondsMin <= policy.Buffer.SecondsMax && len(chosen.Cohorts) <= cohortsMax && (len(chosen.Cohorts) == 0 || chosen.Kind == "cohorts") &&
		(!policy.Server.Mixing && policy.Edges.UpdatesMax == 0 || policy.Merge.Kind == "mean")
}

// isVariedSoundly says whether a layout of genesis v6 is weights, buffers, and a control variate of each weight or none.
func isVariedSoundly(tensors []Tensor) bool {
	sections := map[string]int{"weights": 0, "buffers": 1, "control": 2}
	var weights, control []Tensor
	last := 0
	for _, one := range tensors {
		section, known := sections[one.Section]
		if !known || section < last || section < 2 && strings.HasPrefix(one.Name, controlPrefix) {
			return false
		}
		last = section
		switch section {
		case 0:
			weights = append(weights, one)
		case 2:
			control = append(control, one)
		}
	}
	if len(control) == 0 {
		return true
	}
	if len(control) != len(weights) {
		return false
	}
	for t, one := range control {
		same := one.Name == controlPrefix+weights[t].Name && len(one.Shape) == len(weights[t].Shape)
		for i := 0; same && i < len(one.Shape); i++ {
			same = one.Shape[i] == weights[t].Shape[i]
		}
		if !same || one.Dtype != "float32" || one.Nonnegative {
			return false
		}
	}
	return true
}

// addVariates adds the control tensors of an accepted update to their sums, clipped by their own norm.
func (policy *Policy) addVariates(sums []int64, parts []part, scales []float64, weight int64) {
	squares := make([]float64, len(parts))
	for t, one := range parts {
		squares[t] = one.squares()
	}
	norm, clip := normOf(scales, squares), 1.0
	if norm > policy.Control.NormClip {
		clip = policy.Control.NormClip / norm
	}
	addTo(sums, parts, scales, squares, weight, clip, policy.FixedPoint.Exponent)
}

// moved are a version's control variates.
func (policy *Policy) moved(before []float32, total []int64) []float32 {
	found, unit := make([]float32, len(before)), math.Ldexp(1, -policy.FixedPoint.Exponent)
	for i, c := range before {
		step := float64(float64(total[i])*unit) / float64(policy.Control.Devices)
		found[i] = float32(float64(c) + step)
	}
	return found
}

// baseCount is what a window's accepted updates of one base are: how many, and what they weigh.
type baseCount struct{ accepted, weight int64 }

func (one *openWindow) baseRecords() []any {
	found := []any{}
	for _, base := range sortedVersions(one.bases) {
		counted := one.bases[base]
		found = append(found, Record{"base": base, "accepted": counted.accepted, "weight": counted.weight})
	}
	return found
}

// answered is what the updates of a window weigh, by the version that they answered; before RegionalAggregate v4 it does not say.
func (one *Window) answered() map[int64]int64 {
	found := map[int64]int64{}
	if said, there := one.Record["bases"]; there {
		for _, each := range said.([]any) {
			record := each.(Record)
			found[record["base"].(int64)] += record["weight"].(int64)
		}
	}
	return found
}

// mix turns the mean delta of a version into that of the models which its devices came to, mixed with the parent's.
func mix(mean []float64, total *Total, parent int64, model func(version int64) []float32, divisor float64) {
	before := model(parent)
	for _, base := range sortedVersions(total.bases) {
		if base >= parent {
			continue
		}
		factor, other := float64(total.bases[base])/65536/divisor, model(base)
		for i := range mean {
			apart := float64(other[i]) - float64(before[i])
			mean[i] += float64(factor * apart)
		}
	}
}

// isFullOf says whether the open window has taken as many updates of a cohort as the policy lets one have.
func (p *Partition) isFullOf(cohort string) bool {
	most := p.policy.Shares.CohortWindowMax
	return most > 0 && cohort != "" && p.window.cohorts[cohort] >= most
}
