package main

// An auditor over a recorded federation: schemas/meaning.md, "What an auditor compares".

import (
	"bytes"
	"compress/flate"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// LogRecord is a record of a topic's partition as it stood.
type LogRecord struct {
	offset, timestampMs int64
	value               []byte
	there               bool
}

// readContainer reads an Avro object container of records (offset, timestamp_ms, key, value, headers), null or deflate.
func readContainer(path string) ([]LogRecord, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := &reader{data: data, at: 4, items: -1}
	codec := "null"
	r.blocks(func() {
		if name, value := r.text(), r.take(r.long()); name == "avro.codec" {
			codec = string(value)
		}
	})
	r.take(16)
	var found []LogRecord
	for r.at < len(data) {
		count, block := r.long(), r.take(r.long())
		r.take(16)
		if codec == "deflate" {
			if block, err = io.ReadAll(flate.NewReader(bytes.NewReader(block))); err != nil {
				return nil, err
			}
		}
		inner := &reader{data: block, items: -1}
		optional := func() ([]byte, bool) {
			if inner.long() == 0 {
				return nil, false
			}
			return inner.take(inner.long()), true
		}
		for ; count > 0; count-- {
			one := LogRecord{offset: inner.long(), timestampMs: inner.long()}
			optional()
			one.value, one.there = optional()
			inner.blocks(func() { inner.text(); optional() })
			found = append(found, one)
		}
	}
	return found, nil
}

// readDump reads what kcat wrote with -f '%o %T %S\n%s\n': offset, LogAppendTime, length (−1: no value), value.
func readDump(data []byte) ([]LogRecord, error) {
	var found []LogRecord
	for len(data) > 0 {
		end := bytes.IndexByte(data, '\n')
		var one LogRecord
		var size int
		if end < 0 {
			return nil, fmt.Errorf("a dump that is cut short")
		}
		if _, err := fmt.Sscanf(string(data[:end]), "%d %d %d", &one.offset, &one.timestampMs, &size); err != nil {
			return nil, err
		}
		data = data[end+1:]
		one.there = size >= 0
		if size < 0 {
			size = 0
		}
		if len(data) <= size || data[size] != '\n' {
			return nil, fmt.Errorf("a dump whose record at offset %d is cut short", one.offset)
		}
		one.value, data = data[:size], data[size+1:]
		found = append(found, one)
	}
	return found, nil
}

type auditor struct {
	registry *Registry
	folder   string
	task     string
	genesis  *Genesis
	trust    *Trust
	layout   *Layout
	problems []string
}

func (a *auditor) problem(format string, values ...any) {
	a.problems = append(a.problems, fmt.Sprintf(format, values...))
}

func (a *auditor) topic(name string, partition int64) []LogRecord {
	path := filepath.Join(a.folder, "topics", name, fmt.Sprintf("%d", partition))
	data, err := os.ReadFile(path + ".kcat")
	var found []LogRecord
	if err == nil {
		found, err = readDump(data)
	} else {
		found, err = readContainer(path + ".avro")
	}
	if err != nil {
		panic(err)
	}
	return found
}

func (a *auditor) hasTopic(name string, partition int64) bool {
	found, _ := filepath.Glob(filepath.Join(a.folder, "topics", name, fmt.Sprintf("%d.*", partition)))
	return len(found) > 0
}

// partition is the beginning of a log.
func (a *auditor) partition(slot Slot, partitions int64, policy *Policy) *Partition {
	p := newPartition(a.registry, a.trust, a.task, slot, partitions, a.layout, policy, a.genesis.ModelSHA256)
	p.object = a.object
	return p
}

func (a *auditor) stored(key string) []byte {
	data, err := os.ReadFile(filepath.Join(a.folder, "store", filepath.FromSlash(key)))
	if err != nil {
		return nil
	}
	return data
}

func (a *auditor) object(name string) []byte {
	data := a.stored(objectKey(a.task, name))
	if sha(data) != name {
		a.problem("object %s is missing or damaged", name)
	}
	return data
}

// published reads the windows that workers of the region signed, by sequence.
func (a *auditor) published(slot Slot) map[int64]*Window {
	found, trust := map[int64]*Window{}, *a.trust
	trust.edges = trust.authorities[slot.Region] == nil
	for _, one := range a.topic("fl."+a.task+".aggregates."+slot.Region, slot.Partition) {
		record, signer, envelope := a.registry.verified(one.value, one.timestampMs, &trust, "RegionalAggregate")
		if record == nil || signer.Region != slot.Region || record["task"] != a.task || record["region"] != slot.Region || record["partition"] != slot.Partition {
			a.problem("%s: record %d of its aggregates is none", slot, one.offset)
			continue
		}
		window := &Window{Record: record, Payload: envelope.Payload, SHA256: sha(envelope.Payload)}
		if known := found[window.number("sequence")]; known != nil && known.SHA256 != window.SHA256 {
			a.problem("%s: two windows %d", slot, window.number("sequence"))
		}
		found[window.number("sequence")] = window
	}
	return found
}

// parked finds the offsets that were left out, from the windows' counts and the operators' Skips.
func (a *auditor) parked(slot Slot, log []LogRecord, windows map[int64]*Window) map[int64]*Parked {
	found, named, revoked := map[int64]*Parked{}, map[int64]*Parked{}, map[string]bool{}
	for _, one := range log {
		if revoke, by, _ := a.registry.verified(one.value, one.timestampMs, a.trust, "Revoke"); revoke != nil && len(a.trust.named) > 0 {
			if revoke["task"] == a.task && !revoked[by.Serial] {
				revoked[revoke["certificate_serial"].(string)] = true
			}
		}
		skip, by, _ := a.registry.verified(one.value, one.timestampMs, a.trust, "Skip")
		if skip != nil && !revoked[by.Serial] && skip["task"] == a.task && skip["region"] == slot.Region && skip["partition"] == slot.Partition && skip["offset"].(int64) < one.offset {
			if at := skip["offset"].(int64); named[at] == nil {
				named[at] = &Parked{one.offset, skip["reason"].(string)}
			}
		}
	}
	for _, window := range windows {
		var count int64
		counts := window.Record["counts"].(Map)
		for i, outcome := range counts.Keys {
			if outcome == "skipped" {
				count = counts.Values[i].(int64)
			}
		}
		var here []int64
		for offset := range named {
			if window.number("first_offset") <= offset && offset < window.number("next_offset") && count > 0 {
				here = append(here, offset)
			}
		}
		judged := map[int64]bool{}
		if int64(len(here)) > count {
			for offset, verdicts := range a.verdicts(slot) {
				for _, verdict := range verdicts {
					judged[offset] = judged[offset] || verdict["outcome"] == "skipped"
				}
			}
		}
		for _, offset := range here {
			if int64(len(here)) <= count || judged[offset] {
				found[offset] = named[offset]
			}
		}
	}
	return found
}

// verdicts reads those that stand for each offset. Nobody signs them: there may be others beside the right one.
func (a *auditor) verdicts(slot Slot) map[int64][]Record {
	found := map[int64][]Record{}
	for _, one := range a.topic("fl."+a.task+".verdicts."+slot.Region, slot.Partition) {
		if schema, verdict, err := a.registry.decode(one.value); err == nil && schema.Name == "Verdict" {
			at := verdict["offset"].(int64)
			found[at] = append(found[at], verdict)
		}
	}
	return found
}

func (a *auditor) fold(slot Slot, policy *Policy) ([]*Window, *Partition) {
	log, published, told := a.topic("fl."+a.task+".updates."+slot.Region, slot.Partition), a.published(slot), a.verdicts(slot)
	parked := a.parked(slot, log, published)
	p := a.partition(slot, a.genesis.Regions[slot.Region].Partitions, policy)
	var windows []*Window
	judgedBefore := int64(0)
	for _, window := range published {
		judgedBefore = max64(judgedBefore, window.number("next_offset"))
	}
	for _, one := range log {
		for p.next < one.offset { // a transaction's marker
			if _, window := p.take(nil, false, one.timestampMs, parked[p.next]); window != nil {
				windows = append(windows, window)
			}
		}
		verdict, window := p.take(one.value, one.there, one.timestampMs, parked[one.offset])
		if said := told[one.offset]; len(said) > 0 || one.offset < judgedBefore {
			a.compareVerdicts(slot, verdict, said)
		}
		delete(told, one.offset)
		if window != nil {
			windows = append(windows, window)
		}
	}
	for offset := range told {
		if offset < 0 || offset >= p.next {
			a.problem("%s has a verdict for offset %d, which its log has not", slot, offset)
		}
	}
	for _, window := range windows {
		said := published[window.number("sequence")]
		if said == nil {
			continue
		}
		if said.SHA256 != window.SHA256 {
			a.problem("window %d of %s is %s, recomputed %s", window.number("sequence"), slot, said.SHA256, window.SHA256)
		}
		if state := a.object(said.text("state_sha256")); !bytes.Equal(state, window.State) {
			a.problem("state of window %d of %s", window.number("sequence"), slot)
		}
		if window.Sums != nil && !bytes.Equal(a.object(said.text("sum_sha256")), sumsBytes(window.Sums)) {
			a.problem("sums of window %d of %s", window.number("sequence"), slot)
		}
		delete(published, window.number("sequence"))
	}
	if len(published) > 0 {
		a.problem("%s: %d windows were published that the log does not close", slot, len(published))
	}
	return windows, p
}

// compareVerdicts: one of those that stand for an offset is what the fold gives.
func (a *auditor) compareVerdicts(slot Slot, verdict Verdict, said []Record) {
	for _, one := range said {
		if a.sameVerdict(verdict, one) {
			return
		}
	}
	a.problem("%s@%d: none of %d verdicts is the recomputed %v", slot, verdict.Offset, len(said), verdict)
}

func (a *auditor) sameVerdict(verdict Verdict, said Record) bool {
	for name, expected := range verdictFields(verdict) {
		if said[name] != expected {
			return false
		}
	}
	if a.genesis.Records.Verdicts == 1 {
		return true
	}
	_, second := said["reason"]
	return second && bytes.Equal(a.registry.encode("Verdict", 2, said), verdict.bytes(a.registry))
}

type auditReport struct {
	Versions      int      `json:"versions"`
	Records       int64    `json:"records"`
	Windows       int      `json:"windows"`
	Announcements int      `json:"announcements"`
	Digest        string   `json:"digest"`
	Problems      []string `json:"problems"`
	Models        []string `json:"models"`
	Edges         int      `json:"edges"`
	UnseenEdges   []string `json:"unseen_edges"`
}

func runAudit(registry *Registry, folder, task, pinned string) error {
	a := &auditor{registry: registry, folder: folder, task: task}
	data := a.stored(versionKey(task, 0, "manifest.json"))
	if sha(data) != pinned {
		return fmt.Errorf("the genesis is %s, trusted is %s", sha(data), pinned)
	}
	var err error
	if a.genesis, err = readGenesis(data); err != nil {
		return err
	}
	if a.trust, err = a.genesis.trust(); err != nil {
		return err
	}
	policy, err := readPolicy(a.genesis.Policy)
	if err != nil {
		return err
	}
	a.layout = layoutOf(a.genesis.Layout)
	report, err := a.versions(policy, pinned)
	if err != nil {
		return err
	}
	report.Problems = append([]string{}, a.problems...)
	return json.NewEncoder(os.Stdout).Encode(report)
}

func (a *auditor) versions(first *Policy, pinned string) (*auditReport, error) {
	report, windows := &auditReport{}, map[Slot][]*Window{}
	var barriers []Record
	for _, slot := range a.genesis.slots() {
		found, p := a.fold(slot, first)
		windows[slot], barriers = found, append(barriers, p.barriers...)
		a.below(slot.String(), p.chains, first, report)
		report.Windows += len(found)
		report.Records += int64(len(a.topic("fl."+a.task+".updates."+slot.Region, slot.Partition)))
	}
	chain := &chain{auditor: a, windows: windows, cursors: map[Slot]int64{}}
	if err := chain.begin(first, pinned); err != nil {
		return nil, err
	}
	var digest strings.Builder
	fmt.Fprintf(&digest, "fluvial/audit/v1 %s\n", pinned)
	for version := int64(1); ; version++ {
		data := a.stored(versionKey(a.task, version, "manifest.json"))
		if data == nil {
			break
		}
		one, err := chain.next(version, data)
		if err != nil {
			return nil, err
		}
		report.Versions++
		report.Models = append(report.Models, one.ModelSHA256)
		fmt.Fprintf(&digest, "version %d %s %s %s %s\n", version, sha(data), one.ModelSHA256, one.OptimizerSHA256, one.ReferenceSHA256)
	}
	for _, slot := range a.genesis.slots() {
		for _, window := range windows[slot][:chain.cursors[slot]] {
			fmt.Fprintf(&digest, "window %s %d %d %s\n", slot.Region, slot.Partition, window.number("sequence"), window.SHA256)
		}
	}
	report.Digest = sha([]byte(digest.String()))
	chain.compareSigned("barrier", barriers)
	report.Announcements = chain.announcements()
	return report, nil
}

type chain struct {
	*auditor
	windows    map[Slot][]*Window
	cursors    map[Slot]int64
	parent     string
	policies   []*Policy
	said       []Record
	mergers    []*Identity
	floor      int64
	checkpoint Checkpoint
	reference  string
	pools      Histograms
	models     [][]float32
}

// lateness is what is left of a window that was folded under a version and is merged after another, in 1/65536.
func (policy *Policy) lateness(parent, foldedUnder int64) int64 {
	late, weights := max64(0, parent-foldedUnder), policy.Staleness.Weights
	switch {
	case policy.rounds() && late > 0:
		return 0
	case policy.rounds() || !policy.Buffer.LateWindows:
		return weightOne
	case late < int64(len(weights)):
		return weights[late]
	default:
		return 0
	}
}

func (c *chain) begin(first *Policy, pinned string) error {
	model, optimizer := c.stored(versionKey(c.task, 0, "model.safetensors")), c.stored(versionKey(c.task, 0, "optimizer.safetensors"))
	if sha(model) != c.genesis.ModelSHA256 || sha(optimizer) != c.genesis.OptimizerSHA256 {
		return fmt.Errorf("the files of version 0 are not the genesis'")
	}
	var err error
	if c.checkpoint.Model, err = readModel(model, c.layout); err != nil {
		return err
	}
	for _, variate := range c.checkpoint.Model[c.layout.W+c.layout.B:] {
		if variate != 0 {
			return fmt.Errorf("a control variate of version 0 is %v, not 0", variate)
		}
	}
	if c.checkpoint.Optimizer, err = readOptimizer(optimizer); err != nil {
		return err
	}
	c.parent, c.policies, c.models = pinned, []*Policy{first}, [][]float32{c.checkpoint.Model}
	c.said = []Record{{
		"manifest_sha256": pinned, "model_sha256": c.genesis.ModelSHA256, "policy_sha256": first.SHA256,
		"reference_sha256": "", "floor": int64(0), "reason": "version",
		"usual_norm": 0.0, "usual_cosine": int64(0), "usual_share": int64(0), "guide_sha256": "",
	}}
	return nil
}

// next makes a version again from the windows that its manifest names, and returns the manifest as it has to be.
func (c *chain) next(version int64, data []byte) (*Manifest, error) {
	said, err := readManifest(data)
	if err != nil {
		return nil, err
	}
	merger, err := said.signer(c.trust)
	if err != nil {
		return nil, err
	}
	c.mergers = append(c.mergers, merger)
	before := c.policies[version-1]
	made := &Manifest{
		Merger: said.Merger,
		Format: manifestFormat(c.trust, before), Task: c.task, Version: version, ParentSHA256: c.parent,
		Floor: c.floor, Reason: "version", Counts: map[string]int64{}, Cursors: map[string][]int64{}, Inputs: []Input{},
	}
	made.PolicySHA256 = before.SHA256
	total, counting, latest := newTotal(c.layout), []Histograms{}, int64(0)
	late := made.Format == manifestV3
	if late {
		made.Dropped, made.GuideSHA256 = new(int64), said.GuideSHA256
	}
	for _, input := range said.Inputs {
		slot := Slot{input.Region, input.Partition}
		if c.cursors[slot] >= int64(len(c.windows[slot])) {
			return nil, fmt.Errorf("version %d takes a window of %s that the log does not close", version, slot)
		}
		window := c.windows[slot][c.cursors[slot]]
		c.cursors[slot]++
		weight := int64(weightOne)
		if late {
			weight = before.lateness(version-1, window.number("version"))
		}
		made.add(window, weight)
		total.add(window.Sums, window.bucketWeights(), window.number("accepted"), window.number("weight_total"), weight)
		total.answer(window.answered(), weight)
		if weight > 0 {
			counting = append(counting, window.Histograms)
			if late {
				latest = max64(latest, before.versionsLate(version-1, window.number("version"), window.number("accepted")))
			}
		}
	}
	if late {
		c.pools = c.pools.after(counting)
		made.Usual = &c.pools
	}
	for _, slot := range c.genesis.slots() {
		made.Cursors[slot.Region] = append(made.Cursors[slot.Region], c.cursors[slot])
	}
	if made.Accepted > 0 {
		var step *Direction
		c.checkpoint, step = merge(c.checkpoint, total, before, before.rate(version, made.StalenessMax+latest), c.layout, c.cone(made, before), version-1, c.model)
		file := directionFile(step)
		c.reference = sha(file)
		if !bytes.Equal(c.stored(objectKey(c.task, c.reference)), file) {
			c.problem("the direction of version %d is not in the store", version)
		}
	}
	c.models = append(c.models, c.checkpoint.Model)
	model, optimizer := modelFile(c.checkpoint.Model, c.layout), optimizerFile(c.checkpoint.Optimizer)
	made.ModelSHA256, made.OptimizerSHA256, made.ReferenceSHA256 = sha(model), sha(optimizer), c.reference
	for name, file := range map[string][]byte{"model.safetensors": model, "optimizer.safetensors": optimizer} {
		if !bytes.Equal(c.stored(versionKey(c.task, version, name)), file) {
			c.problem("%s of version %d is another", name, version)
		}
	}
	if !bytes.Equal(made.bytes(), data) {
		c.problem("manifest of version %d: %s, recomputed %s", version, data, made.bytes())
	}
	return made, c.adopt(made, data)
}

// model is a version's; a window of the log names none that there is not.
func (c *chain) model(version int64) []float32 { return c.models[version] }

func (c *chain) adopt(made *Manifest, data []byte) error {
	policy := c.policies[made.Version-1]
	if made.PolicySHA256 != policy.SHA256 {
		var err error
		if policy, err = readPolicy(c.object(made.PolicySHA256)); err != nil {
			return err
		}
	}
	c.parent, c.floor, c.policies = sha(data), made.Floor, append(c.policies, policy)
	usual, guide := Usual{}, ""
	if made.Format == manifestV3 {
		usual, guide = made.Usual.usual(), *made.GuideSHA256
	}
	c.said = append(c.said, Record{
		"manifest_sha256": c.parent, "model_sha256": made.ModelSHA256, "policy_sha256": made.PolicySHA256,
		"reference_sha256": made.ReferenceSHA256, "floor": made.Floor, "reason": made.Reason,
		"usual_norm": usual.Norm, "usual_cosine": usual.Cosine, "usual_share": usual.Share, "guide_sha256": guide,
	})
	return nil
}

// versionsLate is how many versions late a window is, as delays count it: 0 without updates, or where lateness is nothing.
func (policy *Policy) versionsLate(parent, foldedUnder, accepted int64) int64 {
	if accepted == 0 || !policy.Buffer.LateWindows {
		return 0
	}
	return max64(0, parent-foldedUnder)
}

// add puts a window into the manifest, and what lateness leaves of it, in 1/65536.
func (one *Manifest) add(window *Window, weight int64) {
	input := Input{
		Region: window.text("region"), Partition: window.number("partition"), Sequence: window.number("sequence"),
		FirstOffset: window.number("first_offset"), NextOffset: window.number("next_offset"), Accepted: window.number("accepted"),
		SumSHA256: window.text("sum_sha256"), SHA256: window.SHA256,
	}
	if one.Format == manifestV3 {
		version, weighed := window.number("version"), window.number("weight_total")
		input.Version, input.WeightTotal, input.Weight = &version, &weighed, &weight
	}
	one.Inputs = append(one.Inputs, input)
	counts := window.Record["counts"].(Map)
	for i, outcome := range counts.Keys {
		one.Counts[outcome] += counts.Values[i].(int64)
	}
	if weight == 0 {
		*one.Dropped += window.number("accepted")
		return
	}
	one.Accepted += window.number("accepted")
	one.WeightTotal += weightAfter(window.number("weight_total"), weight)
	one.StalenessTotal += window.number("staleness_total")
	one.StalenessMax = max64(one.StalenessMax, window.number("staleness_max"))
	one.UpdateBytes += window.number("update_bytes")
}

// compareSigned holds what mergers said of versions against their manifests.
func (c *chain) compareSigned(what string, records []Record) {
	for _, record := range records {
		version := record["version"].(int64)
		if version < 0 || version >= int64(len(c.said)) {
			c.problem("a %s of version %d, which there is not", what, version)
			continue
		}
		if _, says := record["usual_norm"]; what == "barrier" && !says && c.saysUsual(version) {
			c.problem("a barrier of version %d does not say what is usual", version)
		}
		for name, expected := range c.said[version] {
			if got, there := record[name]; there && got != expected {
				c.problem("a %s of version %d: %s is %v, expected %v", what, version, name, got, expected)
			}
		}
	}
}

// cone holds a version's guide against what it has to be; nil where nothing is turned towards it.
func (c *chain) cone(made *Manifest, policy *Policy) *Cone {
	name, flaw := "", ""
	if made.GuideSHA256 != nil {
		name = *made.GuideSHA256
	}
	var guide *Guide
	switch defence := policy.Defence; {
	case defence.Kind != "guide":
		if name != "" {
			flaw = "is under a policy without guides"
		}
	case name == "":
		if made.Format == manifestV3 && defence.GuideMissing == "wait" {
			flaw = "is missing, and the policy waits for one"
		}
	default:
		guide = c.registry.readGuide(c.object(name), c.trust, c.task, c.layout)
		if guide == nil {
			flaw = "is none"
		} else if age := made.Version - guide.version; age < 1 || age > defence.GuideVersionsMax || guide.version < 0 ||
			c.said[guide.version]["model_sha256"] != guide.model {
			flaw = "is of another model, or too old"
		}
	}
	if flaw != "" {
		c.problem("the guide %q of version %d %s", name, made.Version, flaw)
	}
	if guide == nil {
		return nil
	}
	return &Cone{guide.direction, policy.Defence.StepCosineMin}
}

// saysUsual says whether the barriers of a version have to say what is usual.
func (c *chain) saysUsual(version int64) bool { return c.policies[version].countsShares() }

func (c *chain) announcements() int {
	var found []Record
	first := map[int64]bool{}
	for _, one := range c.topic("fl."+c.task+".models", 0) {
		record, _, _ := c.registry.verified(one.value, one.timestampMs, c.trust, "ModelAnnouncement")
		if record == nil || record["task"] != c.task {
			c.problem("announcement %d is none", one.offset)
			continue
		}
		found = append(found, record)
		version := record["version"].(int64)
		if version < 1 || version > int64(len(c.mergers)) || first[version] {
			continue
		}
		first[version] = true
		// A manifest carries no time: its certificate was valid when the version was announced first.
		merger := c.mergers[version-1]
		if merger != nil && (one.timestampMs < merger.NotBeforeMs || one.timestampMs > merger.NotAfterMs) {
			c.problem("manifest of version %d: its certificate was not valid at %d", version, one.timestampMs)
		}
	}
	c.compareSigned("announcement", found)
	return len(found)
}
