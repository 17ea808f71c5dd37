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
	"strings"
	"unicode/utf8"
)

const (
	countedMax = 1_000_000
	bytesLimit = 64 << 20 // of any policy
)

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
	Why         Why     `json:"-"`
}

func (one *Verdict) refuse(outcome string, code int64, values ...any) {
	one.Outcome, one.Why = outcome, why(code, values...)
}

// bytes is the verdict as it stands in the topic of a task whose verdicts are of version 2.
func (one *Verdict) bytes(registry *Registry) []byte {
	record := Record{"reason": one.Why.Code, "values": union(one.Why.Values), "forged": one.Why.Forged}
	for name, value := range verdictFields(*one) {
		record[name] = value
	}
	return registry.encode("Verdict", 2, record)
}

func verdictFields(one Verdict) map[string]any {
	return map[string]any{
		"offset": one.Offset, "outcome": one.Outcome, "device_id": one.DeviceID, "update_id": one.UpdateID,
		"base_version": one.BaseVersion, "staleness": one.Staleness, "weight": one.Weight, "clip": one.Clip, "norm": one.Norm,
		"norm_deviations": one.Deviations, "cosine": one.Cosine,
	}
}

// Window is a closed window.
type Window struct {
	Record  Record
	Payload []byte
	SHA256  string
	Sums    []int64
	State   []byte

	Histograms Histograms
}

func (one *Window) number(name string) int64 { return one.Record[name].(int64) }

func (one *Window) text(name string) string { return one.Record[name].(string) }

type openWindow struct {
	first                                       int64
	counts                                      map[string]int64
	weight, staleness, stalenessMax, bytesTotal int64
	sums                                        []int64
	buckets                                     map[int64]*[2]int64 // accepted updates and their weight
	bases                                       map[int64]baseCount
	cohorts                                     map[string]int64 // accepted updates
	edgeUpdates                                 int64            // that count in windows of edges
	tally                                       *tally
	contributors                                hash.Hash
}

func newWindow(first int64) *openWindow {
	return &openWindow{first: first, counts: map[string]int64{}, buckets: map[int64]*[2]int64{}, bases: map[int64]baseCount{}, cohorts: map[string]int64{}, tally: newTally(), contributors: sha256.New()}
}

// Partition is the state of one partition's fold. object loads what a barrier names.
type Partition struct {
	registry         *Registry
	trust            *Trust
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
	superseded       map[int64]int64 // since when, in ms
	shares           map[string]*Share
	quarantined      map[string]int64
	edges            map[string]EdgePlace
	chains           chains
	usual            Usual
	guide            *Direction
	guideSHA256      string
	previous         string
	window           *openWindow
	barriers         []Record
}

func newPartition(registry *Registry, trust *Trust, task string, slot Slot, partitions int64, layout *Layout, policy *Policy, model string) *Partition {
	return &Partition{
		registry: registry, trust: trust, task: task, region: slot.Region, partition: slot.Partition, total: partitions,
		layout: layout, policy: policy, models: map[int64]string{0: model}, counted: map[int64]map[string]bool{},
		revoked: map[string]bool{}, window: newWindow(0),
		superseded: map[int64]int64{}, shares: map[string]*Share{}, quarantined: map[string]int64{}, edges: map[string]EdgePlace{}, chains: chains{},
	}
}

// Parked is what is folded in the place of a record: the Skip that names it, nil where none does.
type Parked struct {
	offset int64
	reason string
}

// take folds the next record.
func (p *Partition) take(value []byte, there bool, timestampMs int64, parked *Parked) (Verdict, *Window) {
	verdict := Verdict{Offset: p.next, BaseVersion: -1, Staleness: -1}
	version, policy := p.version, p.policy
	closes := false
	if parked != nil {
		verdict.refuse("skipped", 407, parked.offset, parked.reason)
	} else {
		closes = p.judge(&verdict, value, there, timestampMs)
	}
	if verdict.Outcome != "control" {
		p.window.counts[verdict.Outcome]++
	}
	p.next++
	full := p.window.accepted() >= policy.Window.UpdatesMax || p.next-p.window.first >= policy.Window.RecordsMax
	if !full && !(closes && len(p.window.counts) > 0) {
		return verdict, nil
	}
	return verdict, p.close(version, policy)
}

// judge gives the outcome, and whether the record asks for the window to be closed.
func (p *Partition) judge(verdict *Verdict, value []byte, there bool, timestampMs int64) bool {
	envelope, signer, record, refused := p.open(value, there, timestampMs)
	if refused != nil {
		verdict.Outcome, verdict.Why = refused.Outcome, refused.Why
		if signer != nil {
			verdict.DeviceID = signer.Name
		}
		return false
	}
	if envelope.Kind == "EdgeAggregate" {
		p.edge(verdict, record, signer, arrived{signature: envelope.Signature, size: int64(len(value)), timestampMs: timestampMs})
		return false
	}
	if envelope.Kind == "ClientUpdate" {
		p.update(verdict, record, signer, arrived{
			signature: envelope.Signature, size: int64(len(value)), timestampMs: timestampMs, examples: record["num_examples"].(int64),
		})
		return false
	}
	return p.control(verdict, envelope.Kind, record, signer, timestampMs)
}

// open is checks 1 to 16. The signer of a refused record is known where its payload is what was wrong.
func (p *Partition) open(value []byte, there bool, timestampMs int64) (*Envelope, *Identity, Record, *refusal) {
	size, limit := int64(len(value)), p.policy.Updates.BytesMax
	switch {
	case !there:
		return nil, nil, nil, undecodable(101)
	case size > limit && size > bytesLimit:
		return nil, nil, nil, &refusal{"too_large", why(103, int64(bytesLimit), limit)}
	case size > limit:
		return nil, nil, nil, &refusal{"too_large", why(102, size, limit)}
	}
	known := p.registry
	switch {
	case !p.policy.countsShares():
		known = known.beforeV3
	case !p.policy.countsBuckets():
		known = known.beforeV4
	case !p.policy.knowsPardons():
		known = known.beforeV5
	case !p.policy.varies():
		known = known.beforeV6
	case !p.policy.knowsEdges():
		known = known.edgeless
	}
	envelope, err := known.openEnvelope(value, p.trust.canonical)
	if err != nil {
		return nil, nil, nil, err.(*refusal)
	}
	newest := 2
	if p.policy.Format == policyV1 {
		newest = 1
	}
	if envelope.Kind == "ClientUpdate" && envelope.Schema.Version > newest {
		return nil, nil, nil, unknownSchema(envelope.Schema.Header)
	}
	if !inUpdates[envelope.Kind] {
		return nil, nil, nil, undecodable(111, envelope.Kind)
	}
	signer, refused := envelope.authenticate(p.trust.under(p.policy), timestampMs)
	if refused != nil {
		return nil, nil, nil, refused
	}
	record, err := p.registry.open(envelope.Payload, envelope.Schema, p.trust.canonical)
	if err != nil {
		if envelope.Kind == "EdgeAggregate" {
			signer.Name = signer.Region // who is said to have sent it
		}
		return nil, signer, nil, err.(*refusal)
	}
	return envelope, signer, record, nil
}

func (p *Partition) control(verdict *Verdict, kind string, record Record, signer *Identity, timestampMs int64) bool {
	switch {
	case kind == "Tick" && record["region"] != signer.Region:
		refused := forged(kind, why(223, signer.Region))
		verdict.Outcome, verdict.Why = refused.Outcome, refused.Why
	case record["task"] != p.task:
		verdict.refuse("wrong_task", 411, record["task"])
	case kind != "Revoke" && record["region"] != p.region && !p.isFromAbove(kind, record["region"].(string)):
		verdict.refuse("wrong_region", 412, record["region"])
	case (kind == "Tick" || kind == "Skip") && record["partition"] != p.partition:
		verdict.refuse("wrong_partition", 413, record["partition"])
	case len(p.trust.named) > 0 && p.revoked[p.trust.certificateName(signer.Serial)]:
		verdict.refuse("revoked", 414, signer.Serial)
	default:
		return p.obey(verdict, kind, record, timestampMs)
	}
	return false
}

// isFromAbove says whether it is a Barrier of a region above this edge: those are its own.
func (p *Partition) isFromAbove(kind, region string) bool {
	return kind == "Barrier" && p.policy.knowsEdges() && strings.HasPrefix(p.region, region+".")
}

// obey does what a valid control record says.
func (p *Partition) obey(verdict *Verdict, kind string, record Record, timestampMs int64) bool {
	switch kind {
	case "Tick":
		closes := record["window_first_offset"] == p.window.first && len(p.window.counts) > 0
		verdict.refuse("control", map[bool]int64{true: 403, false: 404}[closes], record["window_first_offset"])
		return closes
	case "Revoke":
		for _, text := range []string{record["device_id"].(string), p.trust.certificateName(record["certificate_serial"].(string))} {
			if text != "" {
				p.revoked[text] = true
			}
		}
		verdict.refuse("control", 405, record["device_id"], record["certificate_serial"], record["reason"])
	case "Skip":
		verdict.refuse("control", 406, record["offset"], record["reason"])
	case "Pardon":
		device, until := record["device_id"].(string), record["until"].(int64)
		ends, quarantined := p.quarantined[device]
		lifts := quarantined && ends == until
		if lifts {
			delete(p.quarantined, device)
		}
		verdict.refuse("control", map[bool]int64{true: 408, false: 409}[lifts], device, until, record["reason"])
	case "Barrier":
		p.barriers = append(p.barriers, record)
		own := p.version
		if p.adopt(record, timestampMs) {
			verdict.refuse("control", 401, record["version"], record["reason"])
			return true
		}
		verdict.refuse("control", 402, record["version"], own)
	}
	return false
}

// adopt takes a barrier's version, policy and direction; the window that it closes is sealed with those before.
func (p *Partition) adopt(barrier Record, timestampMs int64) bool {
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
	p.supersede(version, timestampMs)
	p.models[version] = barrier["model_sha256"].(string)
	p.takeUsual(barrier)
	p.forget()
	p.forgetDevices()
	if !p.policy.varies() {
		clear(p.edges)
	}
	return true
}

func max64(a, b int64) int64 {
	if a > b {
		return a
	}
	return b
}

func min64(a, b int64) int64 { return -max64(-a, -b) }

// arrived is what is known of a record beside what it says.
type arrived struct {
	signature                   []byte
	size, timestampMs, examples int64
	control                     []part
	controlScales               []float64
	cohort                      string
}

// update judges a ClientUpdate, and counts it if it is accepted: checks 18 to 51.
func (p *Partition) update(verdict *Verdict, record Record, signer *Identity, as arrived) {
	verdict.DeviceID = signer.Name
	updateID, base := record["update_id"].(string), record["base_version"].(int64)
	device, region := record["device_id"].(string), record["region"].(string)
	switch {
	case device != signer.Name:
		verdict.refuse("bad_signature", 224, cut(device, 64), signer.Name)
	case utf8.RuneCountInString(updateID) > 64:
		verdict.refuse("wrong_layout", 225, int64(64))
	case region != signer.Region:
		verdict.refuse("wrong_region", 226, cut(region, 64), signer.Region)
	}
	if verdict.Outcome != "" {
		return
	}
	verdict.UpdateID, verdict.BaseVersion = updateID, base
	share, limits, home := p.share(signer.Name), p.policy, partitionOf(signer.Name, p.total)
	switch {
	case p.revoked[signer.Name]:
		verdict.refuse("revoked", 301, signer.Name)
	case p.revoked[p.trust.certificateName(signer.Serial)]:
		verdict.refuse("revoked", 302, signer.Serial)
	case record["task"] != p.task:
		verdict.refuse("wrong_task", 303, record["task"], p.task)
	case signer.Region != p.region:
		verdict.refuse("wrong_region", 304, signer.Region, p.region)
	case home != p.partition:
		verdict.refuse("wrong_partition", 305, home, p.partition)
	default:
		p.wrongBase(verdict, base, record["base_sha256"].(string), as.timestampMs)
	}
	if verdict.Outcome != "" {
		return
	}
	switch {
	case !p.lets(signer, base, as.timestampMs):
		verdict.refuse("not_selected", 331, signer.Name, base)
	case p.counted[base][signer.Name]:
		verdict.refuse("duplicate", 311, signer.Name, base)
	case share != nil && share.tokens < 1:
		verdict.refuse("over_share", 326, signer.Name, p.version, limits.Shares.PerVersion)
	case p.isFullOf(signer.Cohort):
		verdict.refuse("over_share", 332, signer.Cohort, p.version, limits.Shares.CohortWindowMax)
	case share != nil && p.quarantined[signer.Name] > p.version:
		verdict.refuse("quarantined", 327, signer.Name, p.quarantined[signer.Name])
	default:
		as.cohort = signer.Cohort
		p.content(verdict, record, share, as)
	}
}

// wrongBase is why nothing may be made of a version with the model of that hash: checks 26 to 30.
func (p *Partition) wrongBase(verdict *Verdict, base int64, sha256 string, timestampMs int64) {
	model, seen := p.models[base]
	seconds, mayBeOld := p.secondsOld(base, timestampMs)
	limits, most := p.policy, p.policy.Staleness.VersionsMax
	switch {
	case base > p.version:
		verdict.refuse("future_base", 306, base, p.version)
	case limits.rounds() && base < p.version:
		verdict.refuse("round_over", 330, base, p.version)
	case base < p.oldest() && base < p.floor:
		verdict.refuse("too_stale", 308, base, p.version, most, p.floor)
	case base < p.oldest():
		verdict.refuse("too_stale", 307, base, p.version, most)
	case mayBeOld && seconds > limits.Staleness.SecondsMax:
		verdict.refuse("too_stale", 325, base, p.version, most, seconds, limits.Staleness.SecondsMax)
	case !seen:
		verdict.refuse("unknown_base", 309, base)
	case model != sha256:
		verdict.refuse("unknown_base", 310, base, cut(model, 12), cut(sha256, 12))
	}
}

func (p *Partition) content(verdict *Verdict, record Record, share *Share, as arrived) {
	codec, tensors := record["codec"].(string), record["tensors"].([]any)
	parts, scales, refused := p.form(codec, tensors)
	if refused != nil {
		verdict.Outcome, verdict.Why = refused.Outcome, refused.Why
		return
	}
	weights, running := len(p.layout.Weights), len(p.layout.Weights)+len(p.layout.Buffers)
	for t, one := range parts {
		if !finite(scales[t]) || scales[t] < 0 || !one.finite() {
			verdict.refuse("not_finite", 320)
			return
		}
	}
	for t, spec := range p.layout.Buffers {
		for _, x := range parts[weights+t].floats {
			if spec.Nonnegative && x < 0 {
				verdict.refuse("out_of_range", 321, spec.Name)
				return
			}
		}
	}
	as.control, as.controlScales = parts[running:], scales[running:]
	p.measure(verdict, parts[:weights], scales[:weights], parts[weights:running], share, as)
}

func wrongLayout(code int64, values ...any) *refusal {
	return &refusal{"wrong_layout", why(code, values...)}
}

// form is checks 36 to 43: whether the tensors are the layout's in form.
func (p *Partition) form(codec string, tensors []any) ([]part, []float64, *refusal) {
	layout := p.layout.all()
	if !contains(p.policy.Updates.Codecs, codec) {
		return nil, nil, wrongLayout(312, cut(codec, 64), strings.Join(p.policy.Updates.Codecs, ", "))
	}
	same := len(tensors) == len(layout)
	for t := 0; same && t < len(layout); t++ {
		same = tensors[t].(Record)["name"] == layout[t].Name
	}
	if !same {
		return nil, nil, wrongLayout(313, int64(len(tensors)), int64(len(layout)))
	}
	var data [][]byte
	var scales []float64
	for t, spec := range layout {
		one := tensors[t].(Record)
		if fmt.Sprint(one["shape"]) != fmt.Sprint(anyOf(spec.Shape)) {
			return nil, nil, wrongLayout(314)
		}
		data, scales = append(data, one["data"].([]byte)), append(scales, one["scale"].(float64))
	}
	parts, refused := p.levels(codec, data, scales)
	return parts, scales, refused
}

// levels is checks 39 to 43.
func (p *Partition) levels(codec string, data [][]byte, scales []float64) ([]part, *refusal) {
	weights, running := len(p.layout.Weights), len(p.layout.Weights)+len(p.layout.Buffers)
	parts, refused := encodedIn(codec, p.layout.Weights, data, scales)
	if refused != nil {
		return nil, refused
	}
	for t, spec := range p.layout.Buffers {
		bytes, scale := data[weights+t], scales[weights+t]
		if len(bytes) != 4*spec.size() {
			return nil, wrongLayout(318, spec.Name, int64(len(bytes)), int64(4*spec.size()))
		}
		if scale != 1 && finite(scale) && scale >= 0 {
			return nil, wrongLayout(319, spec.Name)
		}
		parts = append(parts, part{floats: float32s(bytes)})
	}
	control, refused := encodedIn(codec, p.layout.Control, data[running:], scales[running:])
	if refused != nil {
		return nil, refused
	}
	return append(parts, control...), nil
}

// encodedIn is checks 39 to 41 of the tensors of one section, which are the first of data and scales.
func encodedIn(codec string, tensors []Tensor, data [][]byte, scales []float64) ([]part, *refusal) {
	var parts []part
	for t, spec := range tensors {
		if expected := dataBytes(codec, spec.size()); len(data[t]) != expected {
			return nil, wrongLayout(315, spec.Name, int64(len(data[t])), int64(expected))
		}
	}
	for t, spec := range tensors {
		one, good := levels(codec, data[t], spec.size())
		if !good {
			return nil, wrongLayout(317, spec.Name, int64(-8))
		}
		parts = append(parts, one)
	}
	for _, scale := range scales[:len(tensors)] {
		if codec == "float32" && scale != 1 && finite(scale) && scale >= 0 {
			return nil, wrongLayout(316, codec)
		}
	}
	return parts, nil
}

func (p *Partition) measure(verdict *Verdict, parts []part, scales []float64, buffers []part, share *Share, as arrived) {
	along, guided := p.direction, p.policy.Defence.Kind == "guide"
	if guided {
		along = p.guide
	}
	squares, dots := make([]float64, len(parts)), make([]float64, len(parts))
	for t, one := range parts {
		squares[t] = one.squares()
		if along != nil {
			dots[t] = one.dot(along.q[t])
		}
	}
	norm, limits := normOf(scales, squares), p.policy.Updates
	verdict.Norm = norm
	if norm > limits.NormMax {
		verdict.refuse("norm_exceeded", 322, norm, limits.NormMax)
		return
	}
	verdict.Cosine = cosineOf(scales, dots, norm, along)
	guided = guided && along != nil
	own := int64(1)
	if share != nil {
		own = share.total() + 1
	}
	found := p.policy.judge(shown{norm, verdict.Cosine, guided, own, p.norms}, p.usual)
	verdict.Deviations = found.deviations
	if found.why != nil {
		verdict.Outcome, verdict.Why = "anomalous", *found.why
		p.remember(verdict, norm, share)
		return
	}
	verdict.refuse("accepted", 0)
	verdict.Staleness = p.version - verdict.BaseVersion
	weights := p.policy.Staleness.Weights
	verdict.Weight = weightLeft(weights[min64(verdict.Staleness, int64(len(weights)-1))], found.factor)
	verdict.Weight = p.policy.Weights.weigh(verdict.Weight, as.examples)
	var clipTo float64
	if verdict.Clip, clipTo = clipOf(norm, limits.NormClip, found.clipTo); verdict.Clip != 1 {
		verdict.refuse("accepted", 300, norm, clipTo)
	}
	p.count(verdict, parts, scales, squares, buffers, as)
	p.remember(verdict, norm, share)
	own = 0
	if share != nil {
		own = share.total()
	}
	p.window.tally.add(norm, verdict.Cosine, guided, own, p.policy.normTimes(norm, clipTo))
}

func (p *Partition) count(verdict *Verdict, parts []part, scales, squares []float64, buffers []part, as arrived) {
	window, buckets, size := p.window, p.policy.buckets(), int64(p.layout.W)
	if window.sums == nil {
		window.sums = make([]int64, int64(p.layout.sumElements())+(buckets-1)*size)
	}
	bucket := bucketOf(p.models[p.version], verdict.DeviceID, buckets)
	addTo(window.sums[bucket*size:], parts, scales, squares, verdict.Weight, verdict.Clip, p.policy.FixedPoint.Exponent)
	if window.buckets[bucket] == nil {
		window.buckets[bucket] = &[2]int64{}
	}
	window.buckets[bucket][0]++
	window.buckets[bucket][1] += verdict.Weight
	at := buckets * size
	for _, one := range buffers {
		for _, x := range one.floats {
			addDigits(window.sums[at:at+10], x, verdict.Weight)
			at += 10
		}
	}
	p.policy.addVariates(window.sums[at:], as.control, as.controlScales, verdict.Weight)
	window.cohorts[as.cohort]++
	counted := window.bases[verdict.BaseVersion]
	window.bases[verdict.BaseVersion] = baseCount{counted.accepted + 1, counted.weight + verdict.Weight}
	window.weight += verdict.Weight
	window.staleness += verdict.Staleness
	window.stalenessMax = max64(window.stalenessMax, verdict.Staleness)
	window.bytesTotal += as.size
	window.contributors.Write(contributor(verdict.Offset, verdict.Weight, verdict.Clip, as.signature))
}

func contributor(offset, weight int64, clip float64, signature []byte) []byte {
	out := binary.LittleEndian.AppendUint64(nil, uint64(offset))
	out = binary.LittleEndian.AppendUint64(out, uint64(weight))
	out = binary.LittleEndian.AppendUint64(out, math.Float64bits(clip))
	return append(out, signature...)
}

func (p *Partition) remember(verdict *Verdict, norm float64, share *Share) {
	base := verdict.BaseVersion
	if p.counted[base] == nil {
		p.counted[base] = map[string]bool{}
	}
	p.counted[base][verdict.DeviceID] = true
	if share != nil {
		p.scored(verdict.DeviceID, share, verdict.Outcome == "accepted")
	}
	if !p.policy.countsShares() || p.policy.Defence.Kind == "peers" {
		p.norms = append(p.norms, norm)
		if over := len(p.norms) - p.policy.Defence.HistoryUpdates; over > 0 {
			p.norms = p.norms[over:]
		}
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
		"counts": counts, "accepted": window.accepted(), "weight_total": window.weight,
		"staleness_total": window.staleness, "staleness_max": window.stalenessMax, "update_bytes": window.bytesTotal,
		"sum_sha256": sums, "state_sha256": sha(state),
		"contributors_sha256": hex.EncodeToString(window.contributors.Sum(nil)), "previous_sha256": p.previous,
	}
	written, histograms := 1, Histograms{}
	if policy.countsShares() {
		written, histograms = 2, window.tally.closed()
		record["norms"], record["cosines"] = histograms.Norms.records(), histograms.Cosines.records()
		record["shares"] = histograms.Shares.records()
	}
	if policy.countsBuckets() {
		written, record["buckets"] = 3, window.bucketRecords(policy.buckets())
	}
	if policy.varies() {
		written, record["bases"] = 4, window.baseRecords()
	}
	payload := p.registry.encode("RegionalAggregate", written, record)
	p.previous = sha(payload)
	return &Window{record, payload, p.previous, window.sums, state, histograms}
}

func (one *openWindow) bucketRecords(buckets int64) []any {
	found := []any{}
	for bucket := int64(0); bucket < buckets; bucket++ {
		counted := one.buckets[bucket]
		if counted == nil {
			counted = &[2]int64{}
		}
		found = append(found, Record{"accepted": counted[0], "weight": counted[1]})
	}
	return found
}

func sortedKeys[V any](values map[string]V) []string {
	keys := make([]string, 0, len(values))
	for key := range values {
		keys = append(keys, key)
	}
	sort.Strings(keys)
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
	record := Record{
		"task": p.task, "region": p.region, "partition": p.partition, "next_offset": p.next, "sequence": p.sequence,
		"version": p.version, "floor": p.floor, "policy_sha256": p.policy.SHA256, "reference_sha256": p.directionSHA256,
		"models": models, "counted": counted, "revoked": anyOf(sortedKeys(p.revoked)), "norms": anyOf(p.norms),
	}
	if !p.policy.countsShares() {
		return p.registry.encode("PartitionState", 1, record)
	}
	superseded, shares, quarantined := []any{}, []any{}, []any{}
	for _, base := range sortedVersions(p.superseded) {
		superseded = append(superseded, Record{"version": base, "since_ms": p.superseded[base]})
	}
	for _, device := range sortedKeys(p.shares) {
		one := p.shares[device]
		shares = append(shares, Record{
			"device_id": device, "version": one.version, "tokens": one.tokens, "accepted": one.accepted,
			"refused": one.refused, "scored": one.scored,
		})
	}
	for _, device := range sortedKeys(p.quarantined) {
		quarantined = append(quarantined, Record{"device_id": device, "until": p.quarantined[device]})
	}
	record["superseded"], record["shares"], record["quarantined"] = superseded, shares, quarantined
	record["guide_sha256"], record["usual_norm"] = p.guideSHA256, p.usual.Norm
	record["usual_cosine"], record["usual_share"] = p.usual.Cosine, p.usual.Share
	if !p.policy.varies() {
		return p.registry.encode("PartitionState", 2, record)
	}
	record["edges"] = p.edgeRecords()
	return p.registry.encode("PartitionState", 3, record)
}
