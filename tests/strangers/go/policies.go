package main

// Policies: schemas/documents.md, "Policy". Read strictly.

import (
	"encoding/json"
	"strings"
)

// Policy is a policy's document.
type Policy struct {
	SHA256  string
	Format  string `json:"format"`
	Updates struct {
		BytesMax int64    `json:"bytes_max"`
		NormClip float64  `json:"norm_clip"`
		NormMax  float64  `json:"norm_max"`
		Codecs   []string `json:"codecs"`
	} `json:"updates"`
	Staleness struct {
		Kind          string  `json:"kind"`
		VersionsMax   int64   `json:"versions_max"`
		SecondsMax    float64 `json:"seconds_max"`
		Exponent      float64 `json:"exponent"`
		HingeVersions int64   `json:"hinge_versions"`
		HingeSlope    float64 `json:"hinge_slope"`
		Weights       []int64 `json:"weights"`
	} `json:"staleness"`
	Window struct {
		UpdatesMax int64   `json:"updates_max"`
		RecordsMax int64   `json:"records_max"`
		SecondsMax float64 `json:"seconds_max"`
	} `json:"window"`
	Buffer struct {
		Updates     int64   `json:"updates"`
		SecondsMax  float64 `json:"seconds_max"`
		LateWindows bool    `json:"late_windows"`
		Mode        string  `json:"mode"`
		Quorum      int64   `json:"quorum"`
		SecondsMin  float64 `json:"seconds_min"`
	} `json:"buffer"`
	Shares struct {
		PerVersion int64 `json:"per_version"`
		SavedMax   int64 `json:"saved_max"`

		CohortWindowMax int64 `json:"cohort_window_max"`
	} `json:"shares"`
	Weights   Weights   `json:"weights"`
	Selection Selection `json:"selection"`
	Schedule  Schedule  `json:"schedule"`
	Control   Control   `json:"control"`
	Edges     Edges     `json:"edges"`

	Server  Server  `json:"server"`
	Merge   Merge   `json:"merge"`
	Defence Defence `json:"defence"`
	Anomaly struct {
		Enabled           bool    `json:"enabled"`
		DeviationsMax     float64 `json:"norm_deviations_max"`
		CosineMin         float64 `json:"cosine_min"`
		HistoryUpdates    int     `json:"history_updates"`
		HistoryUpdatesMin int     `json:"history_updates_min"`
	} `json:"anomaly"`
	FixedPoint struct {
		Exponent int `json:"exponent"`
	} `json:"fixed_point"`
}

// Defence is what a policy does about well-formed updates; of v1 and v2 what they call anomaly.
type Defence struct {
	Kind               string  `json:"kind"`
	UsualNormBy        string  `json:"usual_norm_by"`
	NormClipMedians    float64 `json:"norm_clip_medians"`
	NormClipFloor      float64 `json:"norm_clip_floor"`
	DeviationsMax      float64 `json:"norm_deviations_max"`
	CosineMin          float64 `json:"cosine_min"`
	HistoryUpdates     int     `json:"history_updates"`
	HistoryUpdatesMin  int     `json:"history_updates_min"`
	GuideCosineMin     float64 `json:"guide_cosine_min"`
	GuideVersionsMax   int64   `json:"guide_versions_max"`
	StepCosineMin      float64 `json:"step_cosine_min"`
	GuideMissing       string  `json:"guide_missing"`
	QuarantineRefusals int64   `json:"quarantine_refusals"`
	QuarantineVersions int64   `json:"quarantine_versions"`
}

// Server is what a policy says of the server's step.
type Server struct {
	Optimizer    string  `json:"optimizer"`
	LearningRate float64 `json:"learning_rate"`
	Momentum     float64 `json:"momentum"`
	Beta1        float64 `json:"beta_1"`
	Beta2        float64 `json:"beta_2"`
	Adaptivity   float64 `json:"adaptivity"`
	DivideBy     string  `json:"divide_by"`

	Mixing           bool  `json:"mixing"`
	Nesterov         bool  `json:"nesterov"`
	DelayVersionsMax int64 `json:"delay_versions_max"`
}

const (
	policyV1 = "fluvial/policy/v1"
	policyV2 = "fluvial/policy/v2"
	policyV3 = "fluvial/policy/v3"
	policyV4 = "fluvial/policy/v4"
	policyV5 = "fluvial/policy/v5"
	policyV6 = "fluvial/policy/v6"
)

// formatNumbers are the formats' numbers.
var formatNumbers = map[string]int{policyV1: 1, policyV2: 2, policyV3: 3, policyV4: 4, policyV5: 5, policyV6: 6}

// countsShares says whether its format has shares, lateness and what is usual.
func (policy *Policy) countsShares() bool {
	return policy.Format != policyV1 && policy.Format != policyV2
}

// countsBuckets says whether its format has merges.
func (policy *Policy) countsBuckets() bool { return formatNumbers[policy.Format] >= 4 }

// knowsPardons says whether its format knows the record that lifts a quarantine.
func (policy *Policy) knowsPardons() bool { return formatNumbers[policy.Format] >= 5 }

// buckets are how many a window has.
func (policy *Policy) buckets() int64 { return max64(1, policy.Merge.Buckets) }

// keysOfPolicy are the keys of each section; '3' to '6' behind one that came with that format, '2' behind one that went with v3.
var keysOfPolicy = map[string]string{
	"updates":     "bytes_max norm_clip norm_max codecs",
	"staleness":   "kind versions_max seconds_max:3 exponent hinge_versions hinge_slope weights",
	"window":      "updates_max records_max seconds_max",
	"buffer":      "updates seconds_min:6 seconds_max late_windows:3 mode:5 quorum:5",
	"shares":      "per_version:3 saved_max:3 cohort_window_max:6",
	"server":      "optimizer learning_rate momentum beta_1 beta_2 adaptivity divide_by nesterov:5 delay_versions_max:5 mixing:6",
	"anomaly":     "enabled:2 norm_deviations_max:2 cosine_min:2 history_updates:2 history_updates_min:2",
	"defence":     "kind:3 usual_norm_by:4 norm_clip_medians:3 norm_clip_floor:3 norm_deviations_max:3 cosine_min:3 history_updates:3 history_updates_min:3 guide_cosine_min:3 guide_versions_max:3 step_cosine_min:3 guide_missing:3 quarantine_refusals:3 quarantine_versions:3",
	"merge":       "kind:4 buckets:4 byzantine:4 iterations:4",
	"weights":     "by:5 examples_max:5",
	"selection":   "kind:5 share:5 slots:5 cohorts:6",
	"schedule":    "kind:5 versions:5 factor:5 warmup_versions:5",
	"control":     "devices:6 norm_clip:6",
	"edges":       "updates_max:6",
	"fixed_point": "exponent",
}

// sectionsOf are a format's sections and their keys.
func sectionsOf(format string) map[string]map[string]bool {
	found := map[string]map[string]bool{}
	for section, text := range keysOfPolicy {
		for _, key := range strings.Fields(text) {
			name, since, _ := strings.Cut(key, ":")
			number, came := formatNumbers[format], strings.Index("0123456789", since)
			if since == "2" && number > 2 || since > "2" && number < came {
				continue
			}
			if found[section] == nil {
				found[section] = map[string]bool{}
			}
			found[section][name] = true
		}
	}
	return found
}

// bounds of numbers, by section and key; those of defence are anomaly's as well.
var bounds = map[string][2]float64{
	"updates.bytes_max": {1, 67108864}, "updates.norm_clip": {1e-12, 1e12}, "updates.norm_max": {1e-12, 1e12},
	"staleness.versions_max": {0, 10000}, "staleness.seconds_max": {0, 604800}, "staleness.exponent": {0, 16},
	"staleness.hinge_versions": {0, 10000}, "staleness.hinge_slope": {0, 1e12},
	"window.updates_max": {1, 1000000}, "window.records_max": {1, 10000000}, "window.seconds_max": {0.01, 86400},
	"buffer.updates": {1, 100000000}, "buffer.seconds_max": {0.01, 604800},
	"shares.per_version": {0, 8}, "shares.saved_max": {0, 8},
	"server.learning_rate": {1e-12, 1e12}, "server.momentum": {0, 0.999999}, "server.beta_1": {0, 0.999999},
	"server.beta_2": {0, 0.999999}, "server.adaptivity": {1e-12, 1e12},
	"defence.norm_clip_medians": {0.1, 1e12}, "defence.norm_clip_floor": {0, 1}, "defence.norm_deviations_max": {0.1, 1e12}, "defence.cosine_min": {-1, 1},
	"defence.history_updates": {1, 100000}, "defence.history_updates_min": {2, 100000},
	"defence.guide_cosine_min": {-1, 1}, "defence.step_cosine_min": {0, 1}, "defence.guide_versions_max": {0, 1000},
	"defence.quarantine_refusals": {0, 8}, "defence.quarantine_versions": {1, 10000},
	"merge.buckets": {1, 32}, "merge.byzantine": {0, 14}, "merge.iterations": {1, 64},
	"fixed_point.exponent": {8, 48},
	"weights.examples_max": {1, 65536}, "buffer.quorum": {1, 100000000}, "selection.share": {0, 1}, "selection.slots": {1, 10000},
	"schedule.versions": {1, 1e9}, "schedule.factor": {0, 1}, "schedule.warmup_versions": {0, 1e9}, "server.delay_versions_max": {0, 10000},
	"control.devices": {1, 1e9}, "control.norm_clip": {1e-12, 1e12}, "edges.updates_max": {0, 1e6},
	"shares.cohort_window_max": {0, 1e6}, "buffer.seconds_min": {0, 604800},
}

var kinds = map[string][]string{
	"staleness.kind": {"constant", "polynomial", "hinge"}, "server.divide_by": {"updates", "weights"},
	"defence.kind": {"median", "none", "peers", "guide"}, "defence.guide_missing": {"go_on", "wait"},
	"defence.usual_norm_by": {"squares", "updates"},
	"merge.kind":            {"mean", "geometric_median", "krum", "mixing"},
	"weights.by":            {"updates", "examples"}, "buffer.mode": {"buffer", "rounds"}, "selection.kind": {"all", "share", "slots", "cohorts"},
	"schedule.kind": {"constant", "step", "cosine"},
}

// optimizersOf are the optimizers that documents of a format can name.
func optimizersOf(format string) []string {
	if format == policyV1 {
		return []string{"sgd", "adam"}
	}
	return []string{"sgd", "adam", "yogi", "adagrad", "amsgrad"}
}

// codecsOf are the codecs that documents of a format can name; none for an unknown one.
func codecsOf(format string) []string {
	switch formatNumbers[format] {
	case 0:
		return nil
	case 1:
		return []string{"int8", "float32"}
	default:
		return []string{"int8", "float32", "int4"}
	}
}

func strict(data []byte, into any) error {
	decoder := json.NewDecoder(strings.NewReader(string(data)))
	decoder.DisallowUnknownFields()
	return decoder.Decode(into)
}

func isCanonical(data []byte) bool {
	value, err := parseJSON(data)
	return err == nil && canonical(value) == string(data)
}

// readPolicy reads a document (v1 documents may leave keys out: none of the recorded ones do).
func readPolicy(data []byte) (*Policy, error) {
	policy := &Policy{}
	var named struct {
		Format string `json:"format"`
	}
	if json.Unmarshal(data, &named) != nil || strict(data, policy) != nil || named.Format == policyV1 {
		return nil, errDocument
	}
	policy.SHA256 = sha(data)
	if named.Format == "" {
		policy.Format = policyV1
	} else if !isCanonical(data) {
		return nil, errDocument
	}
	value, err := parseJSON(data)
	if err != nil || codecsOf(policy.Format) == nil || !hasSections(value.(map[string]any), policy.Format) || !policy.isSound() {
		return nil, errDocument
	}
	if !policy.varies() {
		policy.Control = Control{devicesBeforeV6, policy.Updates.NormClip}
	}
	if !policy.countsShares() {
		policy.Defence = Defence{
			Kind: map[bool]string{true: "peers", false: "none"}[policy.Anomaly.Enabled], DeviationsMax: policy.Anomaly.DeviationsMax,
			CosineMin: policy.Anomaly.CosineMin, HistoryUpdates: policy.Anomaly.HistoryUpdates,
			HistoryUpdatesMin: policy.Anomaly.HistoryUpdatesMin, GuideVersionsMax: 2,
		}
	}
	return policy, nil
}

// hasSections says whether a document has the keys of its format and no other, each number within its bounds.
func hasSections(document map[string]any, format string) bool {
	known := sectionsOf(format)
	for section, value := range document {
		if section == "format" && format != policyV1 {
			continue
		}
		keys, ok := value.(map[string]any)
		if !ok || known[section] == nil {
			return false
		}
		for key, one := range keys {
			place := section + "." + key
			if section == "anomaly" {
				place = "defence." + key
			}
			if !known[section][key] || !isWithin(place, one) {
				return false
			}
		}
		if len(keys) != len(known[section]) && format != policyV1 {
			return false
		}
	}
	return format == policyV1 || len(document) == len(known)+1
}

func isWithin(place string, value any) bool {
	if span, there := bounds[place]; there {
		number, ok := value.(json.Number)
		if !ok {
			return false
		}
		x, err := number.Float64()
		return err == nil && span[0] <= x && x <= span[1]
	}
	if names, there := kinds[place]; there {
		name, ok := value.(string)
		return ok && contains(names, name)
	}
	return true
}

// isSound is what keys have to be to each other.
func (policy *Policy) isSound() bool {
	staleness, updates, defence := policy.Staleness, policy.Updates, policy.Defence
	if !policy.countsShares() {
		defence.HistoryUpdates, defence.HistoryUpdatesMin = policy.Anomaly.HistoryUpdates, policy.Anomaly.HistoryUpdatesMin
	}
	for _, weight := range staleness.Weights {
		if weight < 1 || weight > 65536 {
			return false
		}
	}
	for i, codec := range updates.Codecs {
		if !contains(codecsOf(policy.Format), codec) || contains(updates.Codecs[:i], codec) {
			return false
		}
	}
	if policy.countsBuckets() && !policy.Merge.isSound() {
		return false
	}
	if policy.learns() && !policy.learnsSoundly() {
		return false
	}
	if policy.varies() && !policy.variesSoundly() {
		return false
	}
	shares := policy.Shares.PerVersion == 0 || policy.Shares.SavedMax >= policy.Shares.PerVersion
	return shares && len(updates.Codecs) > 0 && int64(len(staleness.Weights)) == staleness.VersionsMax+1 &&
		updates.NormMax >= updates.NormClip && policy.Window.RecordsMax >= policy.Window.UpdatesMax &&
		defence.HistoryUpdatesMin <= defence.HistoryUpdates && contains(optimizersOf(policy.Format), policy.Server.Optimizer)
}
