package main

// The fold of one partition: schemas/meaning.md.

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"math"
	"sort"
	"unicode/utf8"
)

const countedMax = 1_000_000

// Verdict is what became of one offset; its text for people is left out.
type Verdict struct {
	Offset      int64   `json:"offset"`
	Outcome     string  `json:"outcome"`
	DeviceID    string  `json:"device_id"`
	UpdateID    string  `json:"update_id"`
	BaseVersion int64   `json:"base_version"`
	Staleness   int64   `json:"staleness"`
	Weight      int64   `json:"weight"`
	Clip        float64 `json:"clip"`
	Norm        float64 `json:"norm"`
	Deviations  float64 `json:"norm_deviations"`
	Cosine      float64 `json:"cosine"`
}

// Window is a closed window.
type Window struct {
	Record  Record
	Payload []byte
	SHA256  string
	Sums    []int64
	State   []byte
}

func (one *Window) number(name string) int64 { return one.Record[name].(int64) }

func (one *Window) text(name string) string { return one.Record[name].(string) }

type openWindow struct {
	first                                       int64
	counts                                      map[string]int64
	weight, staleness, stalenessMax, bytesTotal int64
	sums                                        []int64
	contributors                                hash.Hash
}

func newWindow(first int64) *openWindow {
	return &openWindow{first: first, counts: map[string]int64{}, contributors: sha256.New()}
}

// Partition is the state of one partition's fold. object loads what a barrier names.
type Partition struct {
	registry         *Registry
	trust            Trust
	object           func(sha256 string) []byte
	task, region     string
	partition, total int64
	layout           *Layout
	next, sequence   int64
	version, floor   int64
	policy           *Policy
	direction        *Direction
	directionSHA256  string
	models           map[int64]string
	counted          map[int64]map[string]bool
	revoked          map[string]bool
	norms            []float64
	previous         string
	window           *openWindow
	barriers         []Record
}

func newPartition(registry *Registry, trust Trust, task string, slot Slot, partitions int64, layout *Layout, policy *Policy, model string) *Partition {
	return &Partition{
		registry: registry, trust: trust, task: task, region: slot.Region, partition: slot.Partition, total: partitions,
		layout: layout, policy: policy, models: map[int64]string{0: model}, counted: map[int64]map[string]bool{},
		revoked: map[string]bool{}, window: newWindow(0),
	}
}

// take folds the next record; parked says that an operator's Skip counts for it.
func (p *Partition) take(value []byte, there bool, timestampMs int64, parked bool) (Verdict, *Window) {
	verdict := Verdict{Offset: p.next, BaseVersion: -1, Staleness: -1}
	version, policy := p.version, p.policy
	closes := false
	if parked {
		verdict.Outcome = "skipped"
	} else {
		closes = p.judge(&verdict, value, there, timestampMs)
	}
	if verdict.Outcome != "control" {
		p.window.counts[verdict.Outcome]++
	}
	p.next++
	full := p.window.counts["accepted"] >= policy.Window.UpdatesMax || p.next-p.window.first >= policy.Window.RecordsMax
	if !full && !(closes && len(p.window.counts) > 0) {
		return verdict, nil
	}
	return verdict, p.close(version, policy)
}

// judge gives the outcome, and whether the record asks for the window to be closed.
func (p *Partition) judge(verdict *Verdict, value []byte, there bool, timestampMs int64) bool {
	if !there {
		verdict.Outcome = string(undecodable)
		return false
	}
	if int64(len(value)) > p.policy.Updates.BytesMax {
		verdict.Outcome = "too_large"
		return false
	}
	envelope, err := p.registry.openEnvelope(value)
	if err != nil {
		verdict.Outcome = err.Error()
		return false
	}
	newest := map[string]int{"fluvial/policy/v1": 1, "fluvial/policy/v2": 2}[p.policy.Format]
	if envelope.Kind == "ClientUpdate" && envelope.Schema.Version > newest {
		verdict.Outcome = string(unknownSchema)
		return false
	}
	if !inUpdates[envelope.Kind] {
		verdict.Outcome = string(undecodable)
		return false
	}
	signer, outcome := envelope.authenticate(p.trust, timestampMs)
	if outcome != "" {
		verdict.Outcome = outcome
		return false
	}
	_, record, err := p.registry.decode(envelope.Payload)
	if err != nil {
		verdict.Outcome, verdict.DeviceID = err.Error(), signer.Name
		return false
	}
	if envelope.Kind == "ClientUpdate" {
		p.update(verdict, record, signer, envelope.Signature, int64(len(value)))
		return false
	}
	return p.control(verdict, envelope.Kind, record, signer)
}

func (p *Partition) control(verdict *Verdict, kind string, record Record, signer *Identity) bool {
	switch {
	case kind == "Tick" && record["region"] != signer.Region:
		verdict.Outcome = "bad_signature"
	case record["task"] != p.task:
		verdict.Outcome = "wrong_task"
	case kind != "Revoke" && record["region"] != p.region:
		verdict.Outcome = "wrong_region"
	case (kind == "Tick" || kind == "Skip") && record["partition"] != p.partition:
		verdict.Outcome = "wrong_partition"
	default:
		verdict.Outcome = "control"
	}
	if verdict.Outcome != "control" {
		return false
	}
	switch kind {
	case "Tick":
		return record["window_first_offset"] == p.window.first
	case "Revoke":
		for _, name := range []string{"device_id", "certificate_serial"} {
			if text := record[name].(string); text != "" {
				p.revoked[text] = true
			}
		}
	case "Barrier":
		p.barriers = append(p.barriers, record)
		return p.adopt(record)
	}
	return false
}

// adopt takes a barrier's version, policy and direction; the window that it closes is sealed with those before.
func (p *Partition) adopt(barrier Record) bool {
	version := barrier["version"].(int64)
	if version <= p.version {
		return false
	}
	if name := barrier["policy_sha256"].(string); name != p.policy.SHA256 {
		policy, err := readPolicy(p.object(name))
		if err != nil || policy.FixedPoint != p.policy.FixedPoint {
			panic(fmt.Sprintf("the barrier of version %d names a policy that cannot be", version))
		}
		p.policy = policy
	}
	p.directionSHA256, p.direction = barrier["reference_sha256"].(string), nil
	if p.directionSHA256 != "" {
		direction, err := readDirection(p.object(p.directionSHA256), p.layout)
		if err != nil {
			panic(err)
		}
		p.direction = direction
	}
	p.version = version
	p.floor = max64(p.floor, min64(barrier["floor"].(int64), version))
	p.models[version] = barrier["model_sha256"].(string)
	p.forget()
	return true
}

func max64(a, b int64) int64 {
	if a > b {
		return a
	}
	return b
}

func min64(a, b int64) int64 { return -max64(-a, -b) }

func (p *Partition) oldest() int64 { return max64(p.floor, p.version-p.policy.Staleness.VersionsMax) }

func (p *Partition) forget() {
	for version := range p.models {
		if version < p.oldest() {
			delete(p.models, version)
		}
	}
	for version := range p.counted {
		if version < p.oldest() {
			delete(p.counted, version)
		}
	}
}

// update judges a ClientUpdate, and counts it if it is accepted.
func (p *Partition) update(verdict *Verdict, record Record, signer *Identity, signature []byte, size int64) {
	verdict.DeviceID = signer.Name
	updateID, base := record["update_id"].(string), record["base_version"].(int64)
	switch {
	case record["device_id"] != signer.Name:
		verdict.Outcome = "bad_signature"
	case utf8.RuneCountInString(updateID) > 64:
		verdict.Outcome = "wrong_layout"
	case record["region"] != signer.Region:
		verdict.Outcome = "wrong_region"
	}
	if verdict.Outcome != "" {
		return
	}
	verdict.UpdateID, verdict.BaseVersion = updateID, base
	model, seen := p.models[base]
	switch {
	case p.revoked[signer.Name], p.revoked[signer.Serial]:
		verdict.Outcome = "revoked"
	case record["task"] != p.task:
		verdict.Outcome = "wrong_task"
	case signer.Region != p.region:
		verdict.Outcome = "wrong_region"
	case partitionOf(signer.Name, p.total) != p.partition:
		verdict.Outcome = "wrong_partition"
	case base > p.version:
		verdict.Outcome = "future_base"
	case base < p.oldest():
		verdict.Outcome = "too_stale"
	case !seen, model != record["base_sha256"]:
		verdict.Outcome = "unknown_base"
	case p.counted[base][signer.Name]:
		verdict.Outcome = "duplicate"
	default:
		p.content(verdict, record, signature, size)
	}
}

func (p *Partition) content(verdict *Verdict, record Record, signature []byte, size int64) {
	codec, tensors := record["codec"].(string), record["tensors"].([]any)
	parts, scales, ok := p.form(codec, tensors)
	if !ok {
		verdict.Outcome = "wrong_layout"
		return
	}
	weights := len(p.layout.Weights)
	for t, one := range parts {
		if !finite(scales[t]) || scales[t] < 0 || !one.finite() {
			verdict.Outcome = "not_finite"
			return
		}
	}
	for t, spec := range p.layout.Buffers {
		for _, x := range parts[weights+t].floats {
			if spec.Nonnegative && x < 0 {
				verdict.Outcome = "out_of_range"
				return
			}
		}
	}
	buffers := parts[weights:]
	p.measure(verdict, parts[:weights], scales[:weights], buffers, signature, size)
}

// form is whether the tensors are the layout's in form.
func (p *Partition) form(codec string, tensors []any) ([]part, []float64, bool) {
	layout := p.layout.all()
	if !contains(p.policy.Updates.Codecs, codec) || len(tensors) != len(layout) {
		return nil, nil, false
	}
	var parts []part
	var scales []float64
	for t, spec := range layout {
		one := tensors[t].(Record)
		name, data, scale := one["name"].(string), one["data"].([]byte), one["scale"].(float64)
		shape := one["shape"].([]any)
		if name != spec.Name || len(shape) != len(spec.Shape) {
			return nil, nil, false
		}
		for i, n := range shape {
			if n.(int64) != spec.Shape[i] {
				return nil, nil, false
			}
		}
		how := codec
		if spec.Section == "buffers" {
			how = "float32"
		}
		if len(data) != dataBytes(how, spec.size()) || how == "float32" && scale != 1 && finite(scale) && scale >= 0 {
			return nil, nil, false
		}
		levels, good := levels(how, data, spec.size())
		if !good {
			return nil, nil, false
		}
		parts, scales = append(parts, levels), append(scales, scale)
	}
	return parts, scales, true
}

func (p *Partition) measure(verdict *Verdict, parts []part, scales []float64, buffers []part, signature []byte, size int64) {
	squares, dots := make([]float64, len(parts)), make([]float64, len(parts))
	for t, one := range parts {
		squares[t] = one.squares()
		if p.direction != nil {
			dots[t] = one.dot(p.direction.q[t])
		}
	}
	norm, limits, anomaly := normOf(scales, squares), p.policy.Updates, p.policy.Anomaly
	verdict.Norm = norm
	if norm > limits.NormMax {
		verdict.Outcome = "norm_exceeded"
		return
	}
	verdict.Cosine = cosineOf(scales, dots, norm, p.direction)
	if anomaly.Enabled && len(p.norms) >= anomaly.HistoryUpdatesMin {
		verdict.Deviations = deviations(norm, p.norms)
	}
	base := verdict.BaseVersion
	if anomaly.Enabled && (verdict.Deviations > anomaly.DeviationsMax || verdict.Cosine < anomaly.CosineMin) {
		verdict.Outcome = "anomalous"
		p.remember(verdict, norm)
		return
	}
	verdict.Outcome = "accepted"
	verdict.Staleness = p.version - base
	verdict.Weight = p.policy.Staleness.Weights[verdict.Staleness]
	verdict.Clip = 1
	if norm > limits.NormClip {
		verdict.Clip = limits.NormClip / norm
	}
	p.count(verdict, parts, scales, squares, buffers, signature, size)
	p.remember(verdict, norm)
}

func (p *Partition) count(verdict *Verdict, parts []part, scales, squares []float64, buffers []part, signature []byte, size int64) {
	window := p.window
	if window.sums == nil {
		window.sums = make([]int64, p.layout.sumElements())
	}
	addTo(window.sums, parts, scales, squares, verdict.Weight, verdict.Clip, p.policy.FixedPoint.Exponent)
	at := p.layout.W
	for _, one := range buffers {
		for _, x := range one.floats {
			addDigits(window.sums[at:at+10], x, verdict.Weight)
			at += 10
		}
	}
	window.weight += verdict.Weight
	window.staleness += verdict.Staleness
	window.stalenessMax = max64(window.stalenessMax, verdict.Staleness)
	window.bytesTotal += size
	window.contributors.Write(contributor(verdict.Offset, verdict.Weight, verdict.Clip, signature))
}

func contributor(offset, weight int64, clip float64, signature []byte) []byte {
	out := binary.LittleEndian.AppendUint64(nil, uint64(offset))
	out = binary.LittleEndian.AppendUint64(out, uint64(weight))
	out = binary.LittleEndian.AppendUint64(out, math.Float64bits(clip))
	return append(out, signature...)
}

func (p *Partition) remember(verdict *Verdict, norm float64) {
	base := verdict.BaseVersion
	if p.counted[base] == nil {
		p.counted[base] = map[string]bool{}
	}
	p.counted[base][verdict.DeviceID] = true
	p.norms = append(p.norms, norm)
	if over := len(p.norms) - p.policy.Anomaly.HistoryUpdates; over > 0 {
		p.norms = p.norms[over:]
	}
	for p.oldest() < p.version && p.contributions() > countedMax {
		p.floor = p.oldest() + 1
		p.forget()
	}
}

func (p *Partition) contributions() int {
	total := 0
	for _, devices := range p.counted {
		total += len(devices)
	}
	return total
}

func (p *Partition) close(version int64, policy *Policy) *Window {
	window := p.window
	counts := Map{Keys: sortedKeys(window.counts)}
	for _, outcome := range counts.Keys {
		counts.Values = append(counts.Values, window.counts[outcome])
	}
	sequence := p.sequence
	p.sequence++
	p.window = newWindow(p.next)
	state, sums := p.state(), ""
	if window.sums != nil {
		sums = sha(sumsBytes(window.sums))
	}
	record := Record{
		"task": p.task, "region": p.region, "partition": p.partition, "sequence": sequence,
		"first_offset": window.first, "next_offset": p.next, "version": version, "policy_sha256": policy.SHA256,
		"counts": counts, "accepted": window.counts["accepted"], "weight_total": window.weight,
		"staleness_total": window.staleness, "staleness_max": window.stalenessMax, "update_bytes": window.bytesTotal,
		"sum_sha256": sums, "state_sha256": sha(state),
		"contributors_sha256": hex.EncodeToString(window.contributors.Sum(nil)), "previous_sha256": p.previous,
	}
	payload := p.registry.encode("RegionalAggregate", 0, record)
	p.previous = sha(payload)
	return &Window{record, payload, p.previous, window.sums, state}
}

func sortedKeys[V any](values map[string]V) []string {
	keys := make([]string, 0, len(values))
	for key := range values {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	return keys
}

func sortedVersions[V any](values map[int64]V) []int64 {
	keys := make([]int64, 0, len(values))
	for key := range values {
		keys = append(keys, key)
	}
	sort.Slice(keys, func(i, j int) bool { return keys[i] < keys[j] })
	return keys
}

func anyOf[V any](values []V) []any {
	found := []any{}
	for _, one := range values {
		found = append(found, one)
	}
	return found
}

func (p *Partition) state() []byte {
	models, counted := []any{}, []any{}
	for _, version := range sortedVersions(p.models) {
		models = append(models, Record{"version": version, "sha256": p.models[version]})
	}
	for _, version := range sortedVersions(p.counted) {
		counted = append(counted, Record{"version": version, "devices": anyOf(sortedKeys(p.counted[version]))})
	}
	return p.registry.encode("PartitionState", 0, Record{
		"task": p.task, "region": p.region, "partition": p.partition, "next_offset": p.next, "sequence": p.sequence,
		"version": p.version, "floor": p.floor, "policy_sha256": p.policy.SHA256, "reference_sha256": p.directionSHA256,
		"models": models, "counted": counted, "revoked": anyOf(sortedKeys(p.revoked)), "norms": anyOf(p.norms),
	})
}
