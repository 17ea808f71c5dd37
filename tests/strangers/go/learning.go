package main

// What came with policy v5: schemas/meaning.md, "Rounds", "The lot", "The weight", "The rate".

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
	"math/bits"
)

// Weights is a policy's section of that name.
type Weights struct {
	By          string `json:"by"`
	ExamplesMax int64  `json:"examples_max"`
}

// Selection is a policy's section of that name.
type Selection struct {
	Kind  string  `json:"kind"`
	Share float64 `json:"share"`
	Slots int64   `json:"slots"`

	Cohorts map[string]float64 `json:"cohorts"`
}

// Schedule is a policy's section of that name.
type Schedule struct {
	Kind           string  `json:"kind"`
	Versions       int64   `json:"versions"`
	Factor         float64 `json:"factor"`
	WarmupVersions int64   `json:"warmup_versions"`
}

const (
	lotDomain   = "fluvial/lot/v1"
	slotDomain  = "fluvial/slot/v1"
	halfPi      = 1.5707963267948966
	cosineTerms = 12

	doublingsMax = 64
	stepsMax     = 64
)

// learns says whether the policy's format has rounds, lots, weights by examples and schedules.
func (policy *Policy) learns() bool { return formatNumbers[policy.Format] >= 5 }

// rounds says whether only the newest version may be answered.
func (policy *Policy) rounds() bool { return policy.Buffer.Mode == "rounds" }

// learnsSoundly is what the keys of v5 have to be to each other.
func (policy *Policy) learnsSoundly() bool {
	one, server := policy.Selection, policy.Server
	return policy.Buffer.Quorum <= policy.Buffer.Updates && (one.Kind == "all" || policy.Staleness.SecondsMax > 0) &&
		(one.Share == 1 || one.Kind == "share" || one.Kind == "cohorts") && (one.Kind != "cohorts" || policy.varies()) &&
		(one.Share >= 1e-6 || policy.varies() && one.Kind == "cohorts") && (one.Slots == 1 || one.Kind == "slots") &&
		(!server.Nesterov || server.Optimizer == "sgd" && server.Momentum > 0) &&
		(policy.Weights.By != "examples" || server.DivideBy == "weights")
}

func drawn(domain, subject, device string) uint64 {
	seen := sha256.Sum256([]byte(domain + "\x00" + subject + "\x00" + device))
	return binary.BigEndian.Uint64(seen[:8])
}

// turns are how many deadlines a base had as the newest version; false where everybody may answer it.
func (p *Partition) turns(base, timestampMs int64) (int64, bool) {
	before := int64(-1)
	for version := range p.superseded {
		if version < base {
			before = max64(before, version)
		}
	}
	if before < 0 {
		return 0, base != 0 && base != p.version
	}
	until := timestampMs
	if gone, is := p.superseded[base]; is {
		until = min64(until, gone)
	}
	seconds := float64(until-p.superseded[before]) / 1000
	return max64(0, int64(seconds/p.policy.Buffer.SecondsMax)), true
}

// lets says whether a device may answer a base of this partition.
func (p *Partition) lets(device *Identity, base, timestampMs int64) bool {
	turns, known := p.turns(base, timestampMs)
	return !known || p.policy.Selection.selects(p.task, base, p.models[base], device.Name, device.Cohort, turns)
}

// shareOf is a device's by the cohort in its certificate, "" for none.
func (one Selection) shareOf(cohort string) float64 {
	if own, named := one.Cohorts[cohort]; named && one.Kind == "cohorts" {
		return own
	}
	return one.Share
}

// selects says whether a device may answer a version of the task that has this model, after so many deadlines.
func (one Selection) selects(task string, base int64, model, device, cohort string, turns int64) bool {
	switch one.Kind {
	case "share", "cohorts":
		whole := math.Floor(math.Ldexp(one.shareOf(cohort), 64+int(min64(turns, doublingsMax))))
		return whole >= math.Ldexp(1, 64) || drawn(lotDomain, model, device) < uint64(whole)
	case "slots":
		slots := one.Slots
		slot := int64(drawn(slotDomain, task, device) % uint64(slots))
		return (base%slots-slot+slots)%slots <= turns
	default:
		return true
	}
}

// weigh is what examples leave of a weight, in 1/65536.
func (rule Weights) weigh(weight, examples int64) int64 {
	if rule.By != "examples" {
		return weight
	}
	counted := min64(max64(examples, 1), rule.ExamplesMax)
	high, low := bits.Mul64(uint64(weight), uint64(counted))
	left, _ := bits.Div64(high, low, uint64(rule.ExamplesMax))
	return max64(1, int64(left))
}

// rate is the server's for a version, whose updates are at most so many versions late.
func (policy *Policy) rate(version, delay int64) float64 {
	found := policy.Schedule.rate(policy.Server.LearningRate, version-1)
	if most := policy.Server.DelayVersionsMax; most > 0 && delay > most {
		return math.Min(found, 1/float64(delay))
	}
	return found
}

func (one Schedule) rate(eta float64, t int64) float64 {
	if t < one.WarmupVersions {
		return eta * float64(float64(t+1)/float64(one.WarmupVersions))
	}
	u := t - one.WarmupVersions
	switch one.Kind {
	case "step":
		r := 1.0
		for n := min64(u/one.Versions, stepsMax); n > 0; n-- {
			r = float64(r * one.Factor)
		}
		return eta * r
	case "cosine":
		rest := float64((1 - one.Factor) * fallen(u, one.Versions))
		return eta * float64(one.Factor+rest)
	default:
		return eta
	}
}

// fallen is (1 + cos(pi u / versions)) / 2, and 0 from there on.
func fallen(u, versions int64) float64 {
	if u >= versions {
		return 0
	}
	y := halfPi * float64(float64(u)/float64(versions))
	q, c := float64(y*y), 1.0
	for k := int64(cosineTerms); k >= 1; k-- {
		part := float64(float64(q/float64((2*k-1)*(2*k))) * c)
		c = float64(1 - part)
	}
	return float64(c * c)
}

// later is Nesterov's, Adagrad's and AMSGrad's direction, with the next state; false for another optimizer.
func (server Server) later(state map[string][]float64, mean []float64) ([]float64, map[string][]float64, bool) {
	direction := make([]float64, len(mean))
	switch {
	case server.Optimizer == "sgd" && server.Momentum > 0 && server.Nesterov:
		after := arrays(state, len(mean), "velocity")
		velocity := after["velocity"]
		for i, d := range mean {
			velocity[i] = float64(server.Momentum*velocity[i]) + d
			direction[i] = d + float64(server.Momentum*velocity[i])
		}
		return direction, after, true
	case server.Optimizer == "adagrad":
		after := arrays(state, len(mean), "m", "v")
		m, v := after["m"], after["v"]
		for i, d := range mean {
			m[i] = float64(server.Beta1*m[i]) + float64((1-server.Beta1)*d)
			v[i] += float64(d * d)
			direction[i] = m[i] / (math.Sqrt(v[i]) + server.Adaptivity)
		}
		return direction, after, true
	case server.Optimizer == "amsgrad":
		after := arrays(state, len(mean), "m", "v", "v_max")
		m, v, most := after["m"], after["v"], after["v_max"]
		for i, d := range mean {
			m[i] = float64(server.Beta1*m[i]) + float64((1-server.Beta1)*d)
			v[i] = float64(server.Beta2*v[i]) + float64((1-server.Beta2)*float64(d*d))
			if v[i] > most[i] {
				most[i] = v[i]
			}
			direction[i] = m[i] / (math.Sqrt(most[i]) + server.Adaptivity)
		}
		return direction, after, true
	default:
		return nil, nil, false
	}
}
