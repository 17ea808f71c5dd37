package main

// Every vector of schemas/vectors.

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
)

// Hex is bytes as vectors have them.
type Hex []byte

// UnmarshalJSON reads hex.
func (one *Hex) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return err
	}
	found, err := hex.DecodeString(text)
	*one = found
	return err
}

// Number is a float64 as vectors have it.
type Number float64

// UnmarshalJSON reads a number, or the text of one that JSON has not.
func (one *Number) UnmarshalJSON(data []byte) error {
	number, err := strconv.ParseFloat(strings.Trim(string(data), `"`), 64)
	*one = Number(number)
	return err
}

func floatsOf(numbers []Number) []float64 {
	found := make([]float64, len(numbers))
	for i, one := range numbers {
		found[i] = float64(one)
	}
	return found
}

func wholesOf(text string) []int64 {
	var found []int64
	for _, one := range strings.Fields(text) {
		number, err := strconv.ParseInt(one, 10, 64)
		if err != nil {
			panic(err)
		}
		found = append(found, number)
	}
	return found
}

func wholesText(numbers []int64) string {
	var texts []string
	for _, one := range numbers {
		texts = append(texts, strconv.FormatInt(one, 10))
	}
	return strings.Join(texts, " ")
}

type file struct {
	Format      string            `json:"format"`
	Cases       []json.RawMessage `json:"cases"`
	Authorities map[string]string `json:"authorities"`
	Layout      []Tensor          `json:"layout"`
	Exponent    int               `json:"exponent"`

	GenesisSHA256 Hex    `json:"genesis_sha256"`
	Region        string `json:"region"`
	Partition     uint32 `json:"partition"`
	TimestampMs   int64  `json:"timestamp_ms"`
	PrivateKey    Hex    `json:"private_key"`
	Certificate   Hex    `json:"certificate"`

	HistoryUpdatesMin int     `json:"history_updates_min"`
	DeviationsMax     float64 `json:"norm_deviations_max"`
	CosineMin         float64 `json:"cosine_min"`

	NormClip float64 `json:"norm_clip"`
	Weight   int64   `json:"weight"`
}

type runner struct {
	registry *Registry
	file     *file
	problems []string
	place    string
}

func (r *runner) equal(what string, got, expected any) {
	if g, e := fmt.Sprintf("%v", got), fmt.Sprintf("%v", expected); g != e {
		r.problems = append(r.problems, fmt.Sprintf("%s: %s is %s, expected %s", r.place, what, g, e))
	}
}

// same compares the bits of two floats.
func (r *runner) same(what string, got, expected float64) {
	if math.Float64bits(got) != math.Float64bits(expected) {
		r.problems = append(r.problems, fmt.Sprintf("%s: %s is %v, expected %v", r.place, what, got, expected))
	}
}

func read[V any](raw json.RawMessage) V {
	var found V
	if err := json.Unmarshal(raw, &found); err != nil {
		panic(err)
	}
	return found
}

func runVectors(registry *Registry, folder string) error {
	runners := map[string]func(*runner, json.RawMessage){
		"schemas.json": (*runner).schema, "records.json": (*runner).record, "envelopes.json": (*runner).envelope,
		"certificates.json": (*runner).certificate, "signatures.json": (*runner).signature, "encodings.json": (*runner).encoding, "partitions.json": (*runner).partition, "staleness.json": (*runner).staleness,
		"policies.json": (*runner).policy, "genesis.json": (*runner).genesis, "manifests.json": (*runner).manifest,
		"names.json": (*runner).names, "digests.json": (*runner).digest, "codecs.json": (*runner).codec, "norms.json": (*runner).norm,
		"scores.json": (*runner).score, "buffers.json": (*runner).buffer, "merges.json": (*runner).merge, "logs.json": (*runner).log,
		"checks.json": (*runner).log, "heads.json": (*runner).head, "defences.json": (*runner).defence, "usual.json": (*runner).usual,
		"buckets.json": (*runner).bucket, "robust.json": (*runner).robust,
		"lateness.json": (*runner).late, "lots.json": (*runner).lot, "examples.json": (*runner).examples, "rates.json": (*runner).rate,
	}
	paths, _ := filepath.Glob(filepath.Join(folder, "vectors", "*.json"))
	sort.Strings(paths)
	counts, problems := map[string]int{}, []string{}
	for _, path := range paths {
		name := filepath.Base(path)
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		content := read[file](data)
		run := runners[name]
		if run == nil || content.Format != "fluvial/vectors/v1" {
			return fmt.Errorf("%s is of a kind that this program does not know", name)
		}
		one := &runner{registry: registry, file: &content}
		for i, raw := range content.Cases {
			one.place = fmt.Sprintf("%s, case %d", name, i)
			run(one, raw)
			counts[name]++
		}
		problems = append(problems, one.problems...)
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{"cases": counts, "problems": problems})
}

func (r *runner) schema(raw json.RawMessage) {
	one := read[struct {
		Name    string `json:"name"`
		Version int    `json:"version"`
		Header  string `json:"header"`
		SHA256  string `json:"sha256"`
		Form    string `json:"canonical_form"`
	}](raw)
	found := r.registry.schema(one.Name, one.Version)
	r.equal("form", found.Form, one.Form)
	r.equal("header", hex.EncodeToString(found.Header), one.Header)
	r.equal("sha256", hex.EncodeToString(found.SHA256), one.SHA256)
}

// typed turns JSON into a schema's values.
func typed(one *node, value any) any {
	switch one.kind {
	case "long", "int":
		number, _ := value.(json.Number).Int64()
		return number
	case "double":
		number, _ := value.(json.Number).Float64()
		return number
	case "bytes":
		data, _ := hex.DecodeString(value.(string))
		return data
	case "union":
		return union([]any{valueOf(json.RawMessage(canonical(value)))})[0]
	case "array":
		found := []any{}
		for _, item := range value.([]any) {
			found = append(found, typed(one.items, item))
		}
		return found
	case "map":
		found, entries := Map{}, value.(map[string]any)
		for _, key := range sortedKeys(entries) {
			found.Keys, found.Values = append(found.Keys, key), append(found.Values, typed(one.items, entries[key]))
		}
		return found
	case "record":
		found, fields := Record{}, value.(map[string]any)
		for _, each := range one.fields {
			found[each.name] = typed(each.node, fields[each.name])
		}
		return found
	default:
		return value
	}
}

func (r *runner) record(raw json.RawMessage) {
	one := read[struct {
		Schema  string          `json:"schema"`
		Version int             `json:"version"`
		Fields  json.RawMessage `json:"fields"`
		Bytes   Hex             `json:"bytes"`
	}](raw)
	fields, err := parseJSON(one.Fields)
	if err != nil {
		panic(err)
	}
	schema := r.registry.schema(one.Schema, one.Version)
	record := typed(schema.root, fields).(Record)
	r.equal("bytes", hex.EncodeToString(r.registry.encode(one.Schema, one.Version, record)), hex.EncodeToString(one.Bytes))
	_, back, err := r.registry.decode(one.Bytes)
	r.equal("error", err, nil)
	r.equal("fields", back, record)
}

func (r *runner) envelope(raw json.RawMessage) {
	one := read[struct {
		Kind        string `json:"kind"`
		Named       Hex    `json:"genesis_sha256"`
		PrivateKey  Hex    `json:"private_key"`
		Certificate Hex    `json:"certificate"`
		Payload     Hex    `json:"payload"`
		Signed      Hex    `json:"signed"`
		Signature   Hex    `json:"signature"`
		Envelope    Hex    `json:"envelope"`
	}](raw)
	key := ed25519.NewKeyFromSeed(one.PrivateKey)
	schema, err := r.registry.schemaIn(one.Payload)
	r.equal("error", err, nil)
	r.equal("signed", hex.EncodeToString(signedBytes(one.Named, one.Kind, schema, one.Payload)), hex.EncodeToString(one.Signed))
	r.equal("envelope", hex.EncodeToString(r.registry.seal(one.Named, one.Kind, one.Payload, one.Certificate, key)), hex.EncodeToString(one.Envelope))
	opened, err := r.registry.openEnvelope(one.Envelope, true)
	r.equal("error", err, nil)
	r.equal("signature", hex.EncodeToString(opened.Signature), hex.EncodeToString(one.Signature))
	r.equal("genuine", ed25519.Verify(key.Public().(ed25519.PublicKey), one.Signed, one.Signature), true)
}

func (r *runner) head(raw json.RawMessage) {
	one := read[struct {
		Name     string  `json:"name"`
		Verdicts []Hex   `json:"verdicts"`
		First    int64   `json:"first_offset"`
		Next     int64   `json:"next_offset"`
		Skipped  []int64 `json:"skipped"`
		SHA256   Hex     `json:"verdicts_sha256"`
		Signed   Hex     `json:"signed"`
		Header   Hex     `json:"header"`
		Good     bool    `json:"good"`
	}](raw)
	place := HeadPlace{r.file.GenesisSHA256, r.file.Region, r.file.Partition}
	found := readHead(one.Header)
	r.equal("good: "+one.Name, found != nil && found.voucher(r.trust(true, nil), r.file.TimestampMs, place) != nil, one.Good)
	if !one.Good {
		return
	}
	var verdicts [][]byte
	for _, each := range one.Verdicts {
		verdicts = append(verdicts, each)
	}
	made := Head{one.First, one.Next, verdictsSHA256(r.registry, verdicts), one.Skipped, nil, nil}
	r.equal("verdicts_sha256", hex.EncodeToString(made.SHA256), hex.EncodeToString(one.SHA256))
	r.equal("signed", hex.EncodeToString(place.signed(made.body())), hex.EncodeToString(one.Signed))
	key := ed25519.NewKeyFromSeed(r.file.PrivateKey)
	r.equal("header", hex.EncodeToString(made.sealed(r.file.Certificate, key, place)), hex.EncodeToString(one.Header))
	r.equal("read", fmt.Sprint(found.First, found.Next, found.Skipped), fmt.Sprint(one.First, one.Next, one.Skipped))
}

func (r *runner) trust(canonical bool, named []byte) *Trust {
	trust, err := trustOf(r.file.Authorities, canonical, named)
	if err != nil {
		panic(err)
	}
	return trust
}

func (r *runner) certificate(raw json.RawMessage) {
	one := read[struct {
		Name     string `json:"name"`
		DER      Hex    `json:"der"`
		Identity *struct {
			Region      string `json:"region"`
			Role        string `json:"role"`
			Name        string `json:"name"`
			Serial      string `json:"serial"`
			NotBeforeMs int64  `json:"not_before_ms"`
			NotAfterMs  int64  `json:"not_after_ms"`
			PublicKey   Hex    `json:"public_key"`
			Cohort      string `json:"cohort"`
		} `json:"identity"`
		Reason int64 `json:"reason"`
	}](raw)
	strictly, err := r.trust(true, nil).identify(one.DER)
	if err != nil {
		r.equal("reason: "+one.Name, err.(*refusal).Why.Code, one.Reason)
	} else {
		r.equal("reason: "+one.Name, 0, one.Reason)
	}
	found, err := r.trust(false, nil).identify(one.DER)
	r.equal("vouched for: "+one.Name, err == nil, one.Identity != nil)
	if strictly != nil {
		r.equal("identity: "+one.Name, *strictly, *found)
	}
	if err == nil && one.Identity != nil {
		expected := one.Identity
		r.equal("identity", *found, Identity{
			expected.Region, expected.Role, expected.Name, expected.Serial, expected.NotBeforeMs, expected.NotAfterMs,
			ed25519.PublicKey(expected.PublicKey), expected.Cohort,
		})
	}
}

func (r *runner) encoding(raw json.RawMessage) {
	one := read[struct {
		Name   string            `json:"name"`
		Schema string            `json:"schema"`
		Bytes  Hex               `json:"bytes"`
		Reason int64             `json:"reason"`
		Values []json.RawMessage `json:"values"`
	}](raw)
	schema, err := r.registry.schemaIn(one.Bytes)
	r.equal("error", err, nil)
	r.equal("schema", schema.Name, one.Schema)
	got := Why{}
	record, err := decodeStrict(one.Bytes, schema)
	if err != nil {
		got = err.(*refusal).Why
	} else {
		r.equal(one.Name+": bytes", hex.EncodeToString(r.registry.encode(schema.Name, schema.Version, record)), hex.EncodeToString(one.Bytes))
	}
	var values []any
	for _, value := range one.Values {
		values = append(values, valueOf(value))
	}
	r.equal(one.Name, []any{got.Code, got.Values}, []any{one.Reason, values})
}

// valueOf reads a reason's value, which stands behind its type's name.
func valueOf(raw json.RawMessage) any {
	one := read[struct {
		Long   *int64  `json:"long"`
		Double *Number `json:"double"`
		String *string `json:"string"`
	}](raw)
	switch {
	case one.Long != nil:
		return *one.Long
	case one.Double != nil:
		return float64(*one.Double)
	default:
		return *one.String
	}
}

func (r *runner) signature(raw json.RawMessage) {
	one := read[struct {
		Name      string `json:"name"`
		PublicKey Hex    `json:"public_key"`
		Message   Hex    `json:"message"`
		Signature Hex    `json:"signature"`
		Valid     bool   `json:"valid"`
	}](raw)
	valid := len(one.Signature) == ed25519.SignatureSize && ed25519.Verify(ed25519.PublicKey(one.PublicKey), one.Message, one.Signature)
	r.equal(one.Name, valid, one.Valid)
}

func (r *runner) partition(raw json.RawMessage) {
	one := read[struct {
		Key        string           `json:"key"`
		Murmur2    uint32           `json:"murmur2"`
		Partitions map[string]int64 `json:"partitions"`
	}](raw)
	r.equal("murmur2", murmur2([]byte(one.Key)), one.Murmur2)
	for text, partition := range one.Partitions {
		partitions, _ := strconv.ParseInt(text, 10, 64)
		r.equal("partition of "+text, partitionOf(one.Key, partitions), partition)
	}
}

func (r *runner) staleness(raw json.RawMessage) {
	one := read[struct {
		Kind          string  `json:"kind"`
		Exponent      float64 `json:"exponent"`
		HingeVersions int     `json:"hinge_versions"`
		HingeSlope    float64 `json:"hinge_slope"`
		Weights       []int64 `json:"weights"`
	}](raw)
	for tau, weight := range one.Weights {
		s := 1.0
		switch {
		case one.Kind == "polynomial":
			s = math.Pow(1+float64(tau), -one.Exponent)
		case one.Kind == "hinge" && tau > one.HingeVersions:
			s = 1 / (float64(one.HingeSlope*float64(tau-one.HingeVersions)) + 1)
		}
		r.equal(fmt.Sprintf("weight of %d", tau), int64(math.RoundToEven(65536*s)), weight)
	}
}

type documentCase struct {
	Document     string   `json:"document"`
	SHA256       string   `json:"sha256"`
	Good         bool     `json:"good"`
	PolicySHA256 string   `json:"policy_sha256"`
	Slots        []string `json:"slots"`
	Weights      int      `json:"weights"`
	Buffers      int      `json:"buffers"`
	Control      int      `json:"control"`
	SumElements  int      `json:"sum_elements"`
	Records      Rules    `json:"records"`
	Genesis      string   `json:"genesis"`
	Signed       bool     `json:"signed"`
}

func (r *runner) policy(raw json.RawMessage) {
	one := read[documentCase](raw)
	r.equal("sha256", sha([]byte(one.Document)), one.SHA256)
	_, err := readPolicy([]byte(one.Document))
	r.equal("good", err == nil, one.Good)
}

func (r *runner) genesis(raw json.RawMessage) {
	one := read[documentCase](raw)
	r.equal("sha256", sha([]byte(one.Document)), one.SHA256)
	found, err := readGenesis([]byte(one.Document))
	r.equal("good", err == nil, one.Good)
	if err != nil {
		return
	}
	layout := layoutOf(found.Layout)
	r.equal("policy", sha(found.Policy), one.PolicySHA256)
	r.equal("slots", found.slots(), one.Slots)
	r.equal("layout", []int{layout.W, layout.B, layout.C, layout.sumElements()}, []int{one.Weights, one.Buffers, one.Control, one.SumElements})
	r.equal("records", found.Records, one.Records)
	_, err = found.trust()
	r.equal("authorities", err, nil)
}

func (r *runner) manifest(raw json.RawMessage) {
	one := read[documentCase](raw)
	r.equal("sha256", sha([]byte(one.Document)), one.SHA256)
	found, err := readManifest([]byte(one.Document))
	r.equal("good", err == nil, one.Good)
	if err == nil {
		r.equal("bytes", string(found.bytes()), one.Document)
	}
	if err != nil || one.Genesis == "" {
		return
	}
	genesis, err := readGenesis([]byte(one.Genesis))
	if err != nil {
		r.equal("genesis", err, nil)
		return
	}
	trust, err := genesis.trust()
	r.equal("authorities", err, nil)
	signer, err := found.signer(trust)
	r.equal("signed", err == nil && signer != nil, one.Signed)
}

func (r *runner) names(raw json.RawMessage) {
	one := read[struct {
		Task    string            `json:"task"`
		Version int64             `json:"version"`
		SHA256  string            `json:"sha256"`
		Keys    map[string]string `json:"keys"`
		Guided  bool              `json:"guided"`
		Topics  []struct {
			Topic string `json:"topic"`
		} `json:"topics"`
	}](raw)
	r.equal("keys", map[string]string{
		"object": objectKey(one.Task, one.SHA256), "manifest": versionKey(one.Task, one.Version, "manifest.json"),
		"genesis": versionKey(one.Task, 0, "manifest.json"), "model": versionKey(one.Task, one.Version, "model.safetensors"),
		"optimizer": versionKey(one.Task, one.Version, "optimizer.safetensors"), "facts": versionKey(one.Task, one.Version, "facts.json"),
	}, one.Keys)
	var topics []string
	for _, region := range []string{"eu", "us"} {
		for _, kind := range []string{"updates", "verdicts", "aggregates"} {
			topics = append(topics, "fl."+one.Task+"."+kind+"."+region)
		}
	}
	topics = append(topics, "fl."+one.Task+".models")
	if one.Guided {
		topics = append(topics, "fl."+one.Task+".guides")
	}
	topics = append(topics, "fl."+one.Task+".metrics")
	r.equal("topics", len(one.Topics), len(topics))
	for i, each := range one.Topics {
		r.equal("topic", each.Topic, topics[i])
	}
}

func (r *runner) digest(raw json.RawMessage) {
	one := read[struct {
		Kind    string `json:"kind"`
		Text    string `json:"text"`
		SHA256  string `json:"sha256"`
		Updates []struct {
			Offset    int64   `json:"offset"`
			Weight    int64   `json:"weight"`
			Clip      float64 `json:"clip"`
			Signature Hex     `json:"signature"`
		} `json:"updates"`
	}](raw)
	hashed := sha256.New()
	hashed.Write([]byte(one.Text))
	for _, each := range one.Updates {
		hashed.Write(contributor(each.Offset, each.Weight, each.Clip, each.Signature))
	}
	r.equal(one.Kind, hex.EncodeToString(hashed.Sum(nil)), one.SHA256)
}

func (r *runner) codec(raw json.RawMessage) {
	one := read[struct {
		Codec    string   `json:"codec"`
		Elements int      `json:"elements"`
		Scale    Number   `json:"scale"`
		Data     Hex      `json:"data"`
		Levels   []Number `json:"levels"`
		Refused  string   `json:"refused"`
	}](raw)
	scale := float64(one.Scale)
	refused := ""
	var found part
	good := len(one.Data) == dataBytes(one.Codec, one.Elements)
	if good {
		found, good = levels(one.Codec, one.Data, one.Elements)
	}
	switch {
	case !good, one.Codec == "float32" && scale != 1 && finite(scale) && scale >= 0:
		refused = "wrong_layout"
	case !finite(scale), scale < 0, !found.finite():
		refused = "not_finite"
	}
	r.equal("refused", refused, one.Refused)
	for i, level := range one.Levels {
		got := 0.0
		if found.ints != nil {
			got = float64(found.ints[i])
		} else {
			got = float64(found.floats[i])
		}
		r.same("level", got, float64(level))
	}
}

type tensorCase struct {
	Scale Number `json:"scale"`
	Data  Hex    `json:"data"`
}

func (r *runner) norm(raw json.RawMessage) {
	one := read[struct {
		Codec         string       `json:"codec"`
		Tensors       []tensorCase `json:"tensors"`
		Squares       []Number     `json:"squares"`
		Norm          Number       `json:"norm"`
		Reference     Hex          `json:"reference"`
		ReferenceNorm Number       `json:"reference_norm"`
		Dots          []Number     `json:"dots"`
		Cosine        Number       `json:"cosine"`
		NormClip      float64      `json:"norm_clip"`
		Clip          Number       `json:"clip"`
		Weight        int64        `json:"weight"`
		Added         string       `json:"added"`
	}](raw)
	layout := layoutOf(r.file.Layout)
	direction, err := readDirection(one.Reference, layout)
	r.equal("error", err, nil)
	r.same("norm of the direction", direction.norm, float64(one.ReferenceNorm))
	var parts []part
	var scales, squares, dots []float64
	for t, tensor := range one.Tensors {
		found, _ := levels(one.Codec, tensor.Data, layout.Weights[t].size())
		parts, scales = append(parts, found), append(scales, float64(tensor.Scale))
		squares, dots = append(squares, found.squares()), append(dots, found.dot(direction.q[t]))
		r.same("squares", squares[t], float64(one.Squares[t]))
		r.same("dot", dots[t], float64(one.Dots[t]))
	}
	norm := normOf(scales, squares)
	r.same("norm", norm, float64(one.Norm))
	r.same("cosine", cosineOf(scales, dots, norm, direction), float64(one.Cosine))
	clip := 1.0
	if norm > one.NormClip {
		clip = one.NormClip / norm
	}
	r.same("clip", clip, float64(one.Clip))
	sums := make([]int64, layout.W)
	addTo(sums, parts, scales, squares, one.Weight, clip, r.file.Exponent)
	r.equal("added", wholesText(sums), one.Added)
}

func (r *runner) score(raw json.RawMessage) {
	one := read[struct {
		History    []Number `json:"history"`
		Norm       float64  `json:"norm"`
		Cosine     float64  `json:"cosine"`
		Deviations Number   `json:"norm_deviations"`
		Anomalous  bool     `json:"anomalous"`
	}](raw)
	found := 0.0
	if len(one.History) >= r.file.HistoryUpdatesMin {
		found = deviations(one.Norm, floatsOf(one.History))
	}
	r.same("deviations", found, float64(one.Deviations))
	r.equal("anomalous", found > r.file.DeviationsMax || one.Cosine < r.file.CosineMin, one.Anomalous)
}

func (r *runner) defence(raw json.RawMessage) {
	one := read[struct {
		Defence    Defence  `json:"defence"`
		Norm       float64  `json:"norm"`
		Cosine     float64  `json:"cosine"`
		Compared   bool     `json:"compared"`
		Share      int64    `json:"share"`
		Norm0      Number   `json:"usual_norm"`
		Cosine0    int64    `json:"usual_cosine"`
		Share0     int64    `json:"usual_share"`
		History    []Number `json:"history"`
		Reason     int64    `json:"reason"`
		Deviations float64  `json:"norm_deviations"`
		Clip       float64  `json:"clip"`
		Weight     int64    `json:"weight"`
	}](raw)
	policy := &Policy{Defence: one.Defence}
	policy.Updates.NormClip = r.file.NormClip
	usual := Usual{float64(one.Norm0), one.Cosine0, one.Share0}
	found := policy.judge(shown{one.Norm, one.Cosine, one.Compared, one.Share, floatsOf(one.History)}, usual)
	r.same("deviations", found.deviations, one.Deviations)
	if found.why != nil {
		r.equal("reason", found.why.Code, one.Reason)
		return
	}
	r.equal("reason", 0, one.Reason)
	clip, _ := clipOf(one.Norm, r.file.NormClip, found.clipTo)
	r.same("clip", clip, one.Clip)
	r.equal("weight", weightLeft(r.file.Weight, found.factor), one.Weight)
}

func (r *runner) usual(raw json.RawMessage) {
	one := read[struct {
		Norm      *float64     `json:"norm"`
		Cosine    *float64     `json:"cosine"`
		Share     *int64       `json:"share"`
		Bucket    int64        `json:"bucket"`
		Middle    float64      `json:"middle"`
		Count     int64        `json:"count"`
		ClipTo    *float64     `json:"clip_to"`
		By        string       `json:"usual_norm_by"`
		Times     int64        `json:"times"`
		Histogram Histogram    `json:"histogram"`
		Median    int64        `json:"median"`
		Before    *Histograms  `json:"before"`
		Windows   []Histograms `json:"windows"`
		Pools     Histograms   `json:"pools"`
		Usual     Usual        `json:"usual"`
	}](raw)
	switch {
	case one.ClipTo != nil:
		policy := Policy{Defence: Defence{UsualNormBy: one.By}}
		r.equal("times", policy.normTimes(*one.Norm, *one.ClipTo), one.Times)
	case one.Norm != nil:
		r.equal("bucket", normBucket(*one.Norm), one.Bucket)
		r.same("middle", middleOf(one.Bucket), one.Middle)
	case one.Cosine != nil:
		r.equal("bucket", cosineBucket(*one.Cosine), one.Bucket)
	case one.Share != nil:
		r.equal("count", shareCount(*one.Share), one.Count)
	case one.Before != nil:
		pools := one.Before.after(one.Windows)
		r.equal("pools", pools, one.Pools)
		r.same("usual norm", pools.usual().Norm, one.Usual.Norm)
		r.equal("usual", pools.usual(), one.Usual)
	default:
		r.equal("median", one.Histogram.median(), one.Median)
	}
}

func (r *runner) buffer(raw json.RawMessage) {
	one := read[struct {
		Values      Hex    `json:"values"`
		Weight      int64  `json:"weight"`
		Digits      string `json:"digits"`
		Sums        string `json:"sums"`
		WeightTotal int64  `json:"weight_total"`
		Means       Hex    `json:"means"`
	}](raw)
	if one.Digits != "" {
		values := float32s(one.Values)
		digits := make([]int64, 10*len(values))
		for i, value := range values {
			addDigits(digits[10*i:10*i+10], value, one.Weight)
		}
		r.equal("digits", wholesText(digits), one.Digits)
		return
	}
	sums, expected := wholesOf(one.Sums), float32s(one.Means)
	for i := range expected {
		r.same("mean", float64(meanOf(sums[10*i:10*i+10], one.WeightTotal)), float64(expected[i]))
	}
}

func (r *runner) merge(raw json.RawMessage) {
	one := read[struct {
		Server          Server   `json:"server"`
		Exponent        int      `json:"exponent"`
		Layout          []Tensor `json:"layout"`
		ParentModel     Hex      `json:"parent_model"`
		ParentOptimizer Hex      `json:"parent_optimizer"`
		Rule            Merge    `json:"merge"`
		Schedule        Schedule `json:"schedule"`
		Version         int64    `json:"version"` // the one that is made; missing: no schedule, and nothing about delays
		Rate            *Number  `json:"rate"`
		Windows         []struct {
			Version     int64         `json:"version"`
			Staleness   int64         `json:"staleness_max"`
			Accepted    int64         `json:"accepted"`
			WeightTotal int64         `json:"weight_total"`
			Buckets     []bucketCount `json:"buckets"`
			Bases       []struct {
				Base   int64 `json:"base"`
				Weight int64 `json:"weight"`
			} `json:"bases"`
			Sums        string `json:"sums"`
			Weight      *int64 `json:"weight"`
			WeightAfter int64  `json:"weight_after"`
		} `json:"windows"`
		Control   Control        `json:"control"`
		Models    map[string]Hex `json:"models"` // of versions that updates answered
		Guide     Hex            `json:"guide"`
		Least     float64        `json:"step_cosine_min"`
		Model     Hex            `json:"model"`
		Optimizer Hex            `json:"optimizer"`
		Reference Hex            `json:"reference"`
	}](raw)
	layout := layoutOf(one.Layout)
	var parent Checkpoint
	var err error
	parent.Model, err = readModel(one.ParentModel, layout)
	r.equal("error", err, nil)
	parent.Optimizer, err = readOptimizer(one.ParentOptimizer)
	r.equal("error", err, nil)
	total, policy := newTotal(layout), read[latenessRule](raw).policy()
	latest, staleness := int64(0), int64(0)
	for _, window := range one.Windows {
		weight := int64(weightOne)
		if window.Weight != nil {
			weight = *window.Weight
			r.equal("weight after lateness", weightAfter(window.WeightTotal, weight), window.WeightAfter)
			if one.Version > 0 {
				r.equal("what lateness leaves", policy.lateness(one.Version-1, window.Version), weight)
			}
		}
		buckets := weightsOf(window.Buckets)
		if buckets == nil {
			buckets = []int64{window.WeightTotal}
		}
		total.add(wholesOf(window.Sums), buckets, window.Accepted, window.WeightTotal, weight)
		for _, each := range window.Bases {
			total.answer(map[int64]int64{each.Base: each.Weight}, weight)
		}
		if weight > 0 {
			latest = max64(latest, policy.versionsLate(one.Version-1, window.Version, window.Accepted))
			staleness = max64(staleness, window.Staleness)
		}
	}
	policy.Server, policy.Merge, policy.Schedule, policy.Control = one.Server, one.Rule, one.Schedule, one.Control
	policy.FixedPoint.Exponent = one.Exponent
	rate := policy.rate(max64(1, one.Version), staleness+latest)
	if one.Rate != nil {
		r.same("rate", rate, float64(*one.Rate))
	}
	var cone *Cone
	if len(one.Guide) > 0 {
		guide, err := readDirection(one.Guide, layout)
		r.equal("error", err, nil)
		cone = &Cone{guide, one.Least}
	}
	models := func(version int64) []float32 {
		if version == one.Version-1 {
			return parent.Model
		}
		found, err := readModel(one.Models[strconv.FormatInt(version, 10)], layout)
		r.equal("error", err, nil)
		return found
	}
	made, direction := merge(parent, total, policy, rate, layout, cone, one.Version-1, models)
	r.equal("model", hex.EncodeToString(modelFile(made.Model, layout)), hex.EncodeToString(one.Model))
	r.equal("optimizer", hex.EncodeToString(optimizerFile(made.Optimizer)), hex.EncodeToString(one.Optimizer))
	r.equal("reference", hex.EncodeToString(directionFile(direction)), hex.EncodeToString(one.Reference))
}

// latenessRule are the keys of a policy that say what is left of a late window.
type latenessRule struct {
	Buffer struct {
		Mode        string `json:"mode"`
		LateWindows bool   `json:"late_windows"`
	} `json:"buffer"`
	Staleness struct {
		VersionsMax int64   `json:"versions_max"`
		Weights     []int64 `json:"weights"`
	} `json:"staleness"`
}

func (rule latenessRule) policy() *Policy {
	policy := &Policy{}
	policy.Buffer.Mode, policy.Buffer.LateWindows = rule.Buffer.Mode, rule.Buffer.LateWindows
	policy.Staleness.VersionsMax, policy.Staleness.Weights = rule.Staleness.VersionsMax, rule.Staleness.Weights
	return policy
}

func (r *runner) late(raw json.RawMessage) {
	one := read[struct {
		Parent  int64 `json:"parent"`
		Version int64 `json:"version"`
		Weight  int64 `json:"weight"`
	}](raw)
	r.equal("weight", read[latenessRule](raw).policy().lateness(one.Parent, one.Version), one.Weight)
}

func (r *runner) lot(raw json.RawMessage) {
	one := read[struct {
		Selection Selection `json:"selection"`
		Task      string    `json:"task"`
		Base      int64     `json:"base_version"`
		Model     string    `json:"base_sha256"`
		Device    string    `json:"device_id"`
		Cohort    string    `json:"cohort"`
		Turns     int64     `json:"turns"`
		Selected  bool      `json:"selected"`
	}](raw)
	r.equal("selected", one.Selection.selects(one.Task, one.Base, one.Model, one.Device, one.Cohort, one.Turns), one.Selected)
}

func (r *runner) examples(raw json.RawMessage) {
	one := read[struct {
		Weights  Weights `json:"weights"`
		Weight   int64   `json:"weight"`
		Examples int64   `json:"num_examples"`
		Weighs   int64   `json:"weighs"`
	}](raw)
	r.equal("weighs", one.Weights.weigh(one.Weight, one.Examples), one.Weighs)
}

func (r *runner) rate(raw json.RawMessage) {
	one := read[struct {
		Server   Server   `json:"server"`
		Schedule Schedule `json:"schedule"`
		Version  int64    `json:"version"`
		Delay    int64    `json:"delay_versions"`
		Rate     Number   `json:"rate"`
	}](raw)
	policy := &Policy{Server: one.Server, Schedule: one.Schedule}
	r.same("rate", policy.rate(one.Version, one.Delay), float64(one.Rate))
}

type bucketCount struct {
	Accepted int64 `json:"accepted"`
	Weight   int64 `json:"weight"`
}

func weightsOf(buckets []bucketCount) []int64 {
	var found []int64
	for _, one := range buckets {
		found = append(found, one.Weight)
	}
	return found
}

func (r *runner) bucket(raw json.RawMessage) {
	one := read[struct {
		Model   string           `json:"model_sha256"`
		Device  string           `json:"device_id"`
		Buckets map[string]int64 `json:"buckets"`
	}](raw)
	for text, bucket := range one.Buckets {
		buckets, _ := strconv.ParseInt(text, 10, 64)
		r.equal("bucket of "+text, bucketOf(one.Model, one.Device, buckets), bucket)
	}
}

func (r *runner) robust(raw json.RawMessage) {
	one := read[struct {
		Name    string `json:"name"`
		Rule    Merge  `json:"merge"`
		Size    int    `json:"weights"`
		Windows []struct {
			Buckets []bucketCount `json:"buckets"`
			Weight  int64         `json:"weight"`
			Sums    string        `json:"sums"`
		} `json:"windows"`
		Weights      []int64    `json:"bucket_weights"`
		Gram         [][]Number `json:"gram"`
		Coefficients []Number   `json:"coefficients"`
		Total        string     `json:"total"`
	}](raw)
	total := newTotal(&Layout{W: one.Size})
	for _, window := range one.Windows {
		buckets := weightsOf(window.Buckets)
		var all int64
		for _, weight := range buckets {
			all += weight
		}
		total.add(wholesOf(window.Sums), buckets, 0, all, window.Weight)
	}
	r.equal(one.Name+": total", wholesText(total.combined(one.Rule)), one.Total)
	r.equal(one.Name+": of one number of buckets", len(total.buckets) == 1, one.Weights != nil)
	if one.Weights == nil {
		return
	}
	var kept []Bucket
	var weights []int64
	for _, buckets := range total.buckets {
		for _, bucket := range buckets {
			weights = append(weights, bucket.weight)
			if bucket.weight > 0 {
				kept = append(kept, bucket)
			}
		}
	}
	r.equal(one.Name+": weights", weights, one.Weights)
	if one.Coefficients == nil {
		return
	}
	g := gramOf(kept)
	r.equal(one.Name+": buckets left", len(g), len(one.Coefficients))
	for a, row := range one.Gram {
		for b, product := range row {
			r.same(one.Name+": gram", g[a][b], float64(product))
		}
	}
	for b, coefficient := range coefficients(one.Rule, kept) {
		r.same(one.Name+": coefficient", coefficient, float64(one.Coefficients[b]))
	}
}

type logCase struct {
	Name        string           `json:"name"`
	Canonical   *bool            `json:"canonical"` // by which rules alone; missing: by both
	Task        string           `json:"task"`
	Named       Hex              `json:"genesis_sha256"`
	Region      string           `json:"region"`
	Partition   int64            `json:"partition"`
	Partitions  int64            `json:"partitions"`
	ModelSHA256 string           `json:"model_sha256"`
	Layout      []Tensor         `json:"layout"`
	Policy      string           `json:"policy"`
	Objects     map[string]Hex   `json:"objects"`
	Parked      map[string]int64 `json:"parked"`
	Records     []struct {
		TimestampMs int64 `json:"timestamp_ms"`
		Value       *Hex  `json:"value"`
	} `json:"records"`
	Verdicts []json.RawMessage `json:"verdicts"`
	Windows  []struct {
		ClosedBy int64  `json:"closed_by"`
		Payload  Hex    `json:"payload"`
		SHA256   string `json:"sha256"`
		Sums     string `json:"sums"`
		State    Hex    `json:"state"`
	} `json:"windows"`
}

// log folds a log by the first rules and by those of canonical records: outcomes and windows are the same.
func (r *runner) log(raw json.RawMessage) {
	one := read[logCase](raw)
	for _, canonical := range []bool{false, true} {
		if one.Canonical == nil || *one.Canonical == canonical {
			r.fold(&one, r.trust(canonical, one.Named))
		}
	}
}

func (r *runner) fold(one *logCase, trust *Trust) {
	policy, err := readPolicy([]byte(one.Policy))
	if err != nil {
		r.equal(one.Name+": policy", err, nil)
		return
	}
	p := newPartition(r.registry, trust, one.Task, Slot{one.Region, one.Partition}, one.Partitions, layoutOf(one.Layout), policy, one.ModelSHA256)
	p.object = func(name string) []byte { return one.Objects[name] }
	closed := 0
	for offset, record := range one.Records {
		var parked *Parked
		if at, there := one.Parked[strconv.Itoa(offset)]; there {
			skip, _, _ := r.registry.verified(*one.Records[at].Value, one.Records[at].TimestampMs, trust, "Skip")
			parked = &Parked{at, skip["reason"].(string)}
		}
		var value []byte
		if record.Value != nil {
			value = *record.Value
		}
		verdict, window := p.take(value, record.Value != nil, record.TimestampMs, parked)
		r.verdict(fmt.Sprintf("%s: verdict of %d", one.Name, offset), verdict, one.Verdicts[offset], trust.canonical)
		if window != nil {
			r.window(one, closed, int64(offset), window)
			closed++
		}
	}
	r.equal(one.Name+": windows", closed, len(one.Windows))
}

func (r *runner) verdict(what string, got Verdict, raw json.RawMessage, canonical bool) {
	expected := read[Verdict](raw)
	r.equal(what, verdictFields(got), verdictFields(expected))
	if !canonical {
		return
	}
	v2 := read[struct {
		Reason int64 `json:"reason"`
		V2     Hex   `json:"v2"`
	}](raw)
	r.equal(what+": reason", got.Why.Code, v2.Reason)
	r.equal(what+": bytes", hex.EncodeToString(got.bytes(r.registry)), hex.EncodeToString(v2.V2))
}

func (r *runner) window(one *logCase, number int, offset int64, window *Window) {
	if number >= len(one.Windows) {
		return
	}
	expected, what := one.Windows[number], fmt.Sprintf("%s: window %d: ", one.Name, number)
	r.equal(what+"closed by", offset, expected.ClosedBy)
	r.equal(what+"sums", wholesText(window.Sums), expected.Sums)
	r.equal(what+"state", hex.EncodeToString(window.State), hex.EncodeToString(expected.State))
	r.equal(what+"payload", hex.EncodeToString(window.Payload), hex.EncodeToString(expected.Payload))
	r.equal(what+"sha256", window.SHA256, expected.SHA256)
}
