package main

// A version from its parent and its windows' sums; safetensors files: schemas/meaning.md, schemas/documents.md.

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"sort"
	"strings"
)

// Checkpoint is a version's arrays.
type Checkpoint struct {
	Model     []float32
	Optimizer map[string][]float64
}

type stored struct {
	name  string
	dtype string
	shape []int64
	data  []byte
}

var dtypeOrder = map[string]int{"F64": 0, "F32": 1, "I8": 2}

func safetensors(tensors []stored) []byte {
	sort.SliceStable(tensors, func(i, j int) bool {
		a, b := tensors[i], tensors[j]
		if a.dtype != b.dtype {
			return dtypeOrder[a.dtype] < dtypeOrder[b.dtype]
		}
		return a.name < b.name
	})
	var header strings.Builder
	var data []byte
	header.WriteByte('{')
	for i, one := range tensors {
		if i > 0 {
			header.WriteByte(',')
		}
		writeString(&header, one.name)
		shape := strings.ReplaceAll(fmt.Sprint(one.shape), " ", ",")
		fmt.Fprintf(&header, `:{"dtype":"%s","shape":%s,"data_offsets":[%d,%d]}`, one.dtype, shape, len(data), len(data)+len(one.data))
		data = append(data, one.data...)
	}
	header.WriteByte('}')
	for header.Len()%8 != 0 {
		header.WriteByte(' ')
	}
	out := binary.LittleEndian.AppendUint64(nil, uint64(header.Len()))
	return append(append(out, header.String()...), data...)
}

func readSafetensors(file []byte) (map[string][]byte, error) {
	if len(file) < 8 || uint64(len(file)-8) < binary.LittleEndian.Uint64(file) {
		return nil, errDocument
	}
	begin := 8 + binary.LittleEndian.Uint64(file)
	var header map[string]struct {
		Offsets [2]uint64 `json:"data_offsets"`
	}
	if err := json.Unmarshal(file[8:begin], &header); err != nil {
		return nil, err
	}
	found := map[string][]byte{}
	for name, one := range header {
		if one.Offsets[0] > one.Offsets[1] || one.Offsets[1] > uint64(len(file))-begin {
			return nil, errDocument
		}
		found[name] = file[begin+one.Offsets[0] : begin+one.Offsets[1]]
	}
	return found, nil
}

func modelFile(model []float32, layout *Layout) []byte {
	var tensors []stored
	for _, one := range layout.all() {
		data := make([]byte, 0, 4*one.size())
		for _, x := range model[:one.size()] {
			data = binary.LittleEndian.AppendUint32(data, math.Float32bits(x))
		}
		model = model[one.size():]
		tensors = append(tensors, stored{one.Name, "F32", one.Shape, data})
	}
	return safetensors(tensors)
}

func readModel(file []byte, layout *Layout) ([]float32, error) {
	tensors, err := readSafetensors(file)
	if err != nil {
		return nil, err
	}
	var model []float32
	for _, one := range layout.all() {
		if len(tensors[one.Name]) != 4*one.size() {
			return nil, errDocument
		}
		model = append(model, float32s(tensors[one.Name])...)
	}
	return model, nil
}

func float64s(data []byte) []float64 {
	found := make([]float64, len(data)/8)
	for i := range found {
		found[i] = math.Float64frombits(binary.LittleEndian.Uint64(data[8*i:]))
	}
	return found
}

func float64Bytes(values []float64) []byte {
	var data []byte
	for _, x := range values {
		data = binary.LittleEndian.AppendUint64(data, math.Float64bits(x))
	}
	return data
}

func optimizerFile(state map[string][]float64) []byte {
	var tensors []stored
	for name, values := range state {
		tensors = append(tensors, stored{name, "F64", []int64{int64(len(values))}, float64Bytes(values)})
	}
	return safetensors(tensors)
}

func readOptimizer(file []byte) (map[string][]float64, error) {
	tensors, err := readSafetensors(file)
	state := map[string][]float64{}
	for name, data := range tensors {
		state[name] = float64s(data)
	}
	return state, err
}

func directionFile(one *Direction) []byte {
	var flat []byte
	for _, q := range one.q {
		for _, level := range q {
			flat = append(flat, byte(level))
		}
	}
	return safetensors([]stored{
		{"fluvial.step", "I8", []int64{int64(len(flat))}, flat},
		{"fluvial.scales", "F64", []int64{int64(len(one.scales))}, float64Bytes(one.scales)},
	})
}

func readDirection(file []byte, layout *Layout) (*Direction, error) {
	tensors, err := readSafetensors(file)
	if err != nil {
		return nil, err
	}
	flat, q := tensors["fluvial.step"], [][]int8{}
	if len(flat) != layout.W || len(tensors["fluvial.scales"]) != 8*len(layout.Weights) {
		return nil, errDocument
	}
	for _, one := range layout.Weights {
		levels, _ := levels("int8", flat[:one.size()], one.size())
		q, flat = append(q, levels.ints), flat[one.size():]
	}
	return directionOf(q, float64s(tensors["fluvial.scales"])), nil
}

func sumsBytes(sums []int64) []byte {
	var data []byte
	for _, one := range sums {
		data = binary.LittleEndian.AppendUint64(data, uint64(one))
	}
	return data
}

// arrays gives a state's arrays of these names, or zeros where it has others.
func arrays(state map[string][]float64, size int, names ...string) map[string][]float64 {
	kept := len(state) == len(names)
	for _, name := range names {
		_, there := state[name]
		kept = kept && there
	}
	found := map[string][]float64{}
	for _, name := range names {
		found[name] = make([]float64, size)
		if kept {
			copy(found[name], state[name])
		}
	}
	return found
}

// direct is the optimizer's direction, and its next state.
func direct(server Server, state map[string][]float64, mean []float64) ([]float64, map[string][]float64) {
	if direction, after, found := server.later(state, mean); found {
		return direction, after
	}
	if server.Optimizer == "sgd" {
		if server.Momentum == 0 {
			return mean, map[string][]float64{}
		}
		after := arrays(state, len(mean), "velocity")
		for i, d := range mean {
			after["velocity"][i] = float64(server.Momentum*after["velocity"][i]) + d
		}
		return after["velocity"], after
	}
	after := arrays(state, len(mean), "m", "v")
	m, v, direction := after["m"], after["v"], make([]float64, len(mean))
	for i, d := range mean {
		squared := d * d
		m[i] = float64(server.Beta1*m[i]) + float64((1-server.Beta1)*d)
		if server.Optimizer == "adam" {
			v[i] = float64(server.Beta2*v[i]) + float64((1-server.Beta2)*squared)
		} else {
			v[i] = v[i] - float64(float64((1-server.Beta2)*squared)*sign(v[i]-squared))
		}
		direction[i] = m[i] / (math.Sqrt(v[i]) + server.Adaptivity)
	}
	return direction, after
}

func sign(x float64) float64 {
	switch {
	case x > 0:
		return 1
	case x < 0:
		return -1
	default:
		return x
	}
}

// merge is one step from the parent, a version: the next checkpoint and its direction. models are the versions' up to it.
func merge(parent Checkpoint, total *Total, policy *Policy, rate float64, layout *Layout, cone *Cone, version int64, models func(int64) []float32) (Checkpoint, *Direction) {
	server, sums := policy.Server, cone.turned(total.combined(policy.Merge))
	divisor := float64(total.updates)
	if server.DivideBy == "weights" {
		divisor = float64(total.weightTotal) / 65536
	}
	mean := make([]float64, layout.W)
	for i := range mean {
		mean[i] = float64(sums[i]) / math.Ldexp(1, policy.FixedPoint.Exponent) / divisor
	}
	if server.Mixing {
		mix(mean, total, version, models, divisor)
	}
	direction, state := direct(server, parent.Optimizer, mean)
	model, steps := make([]float32, layout.W+layout.B, layout.W+layout.B+layout.C), make([]float64, layout.W)
	for i := range mean {
		model[i] = float32(float64(parent.Model[i]) + float64(rate*direction[i]))
		steps[i] = float64(model[i]) - float64(parent.Model[i])
	}
	for b, value := range total.values {
		model[layout.W+b] = nearest(value, total.weighs)
	}
	model = append(model, policy.moved(parent.Model[layout.W+layout.B:], total.control)...)
	return Checkpoint{model, state}, stepDirection(steps, layout)
}

func stepDirection(steps []float64, layout *Layout) *Direction {
	var q [][]int8
	var scales []float64
	for _, one := range layout.Weights {
		part, largest := steps[:one.size()], 0.0
		steps = steps[one.size():]
		for _, x := range part {
			largest = math.Max(largest, math.Abs(x))
		}
		scale, rounded := largest/127, make([]int8, len(part))
		for i, x := range part {
			if scale > 0 {
				rounded[i] = int8(math.Max(-127, math.Min(127, math.RoundToEven(x/scale))))
			}
		}
		q, scales = append(q, rounded), append(scales, scale)
	}
	return directionOf(q, scales)
}

// Cone is how far from its guide a version's step may point; nil where nothing is turned.
type Cone struct {
	guide *Direction
	least float64
}

func (cone *Cone) turned(sums []int64) []int64 {
	if cone == nil || cone.least <= 0 {
		return sums
	}
	toward := make([]float64, 0, len(sums))
	for t, q := range cone.guide.q {
		for _, level := range q {
			toward = append(toward, float64(level)*cone.guide.scales[t])
		}
	}
	along, squares, others := 0.0, 0.0, 0.0
	for i, g := range toward {
		m := float64(sums[i])
		along += float64(m * g)
		squares += float64(m * m)
		others += float64(g * g)
	}
	made, least := make([]int64, len(sums)), cone.least
	if !(along > 0) {
		return made
	}
	if float64(along*along) >= float64(float64(float64(least*least)*squares)*others) {
		return sums
	}
	part := along / others
	allowed := float64(float64(part*math.Sqrt(others))*math.Sqrt(1-float64(least*least))) / least
	across, kept := math.Sqrt(math.Max(0, squares-float64(along*part))), 1.0
	if across > 0 {
		kept = math.Min(1, allowed/across)
	}
	rest := float64((1 - kept) * part)
	for i, g := range toward {
		mixed := float64(kept*float64(sums[i])) + float64(rest*g)
		made[i] = int64(math.RoundToEven(math.Max(-coneMax, math.Min(coneMax, mixed))))
	}
	return made
}

const coneMax = 1 << 62
