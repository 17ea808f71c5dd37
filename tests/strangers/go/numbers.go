package main

// Numbers, in the order of schemas/meaning.md. float64(a*b) keeps the compiler from fusing a product with a sum.

import (
	"encoding/binary"
	"math"
	"math/big"
	"sort"
)

// part is one tensor's levels: small integers, or binary32 numbers.
type part struct {
	ints   []int8
	floats []float32
}

func dataBytes(codec string, elements int) int {
	switch codec {
	case "int8":
		return elements
	case "int4":
		return (elements + 1) / 2
	default:
		return 4 * elements
	}
}

// levels reads a tensor's data of the right length; false for bytes that no writer makes.
func levels(codec string, data []byte, elements int) (part, bool) {
	switch codec {
	case "int8":
		ints := make([]int8, elements)
		for i, b := range data {
			ints[i] = int8(b)
		}
		return part{ints: ints}, true
	case "int4":
		ints := make([]int8, 0, elements+1)
		for _, b := range data {
			for _, half := range []byte{b & 15, b >> 4} {
				if half == 8 {
					return part{}, false
				}
				ints = append(ints, int8(half<<4)>>4)
			}
		}
		for _, padding := range ints[elements:] {
			if padding != 0 {
				return part{}, false
			}
		}
		return part{ints: ints[:elements]}, true
	default:
		return part{floats: float32s(data)}, true
	}
}

func float32s(data []byte) []float32 {
	floats := make([]float32, len(data)/4)
	for i := range floats {
		floats[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:]))
	}
	return floats
}

func finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }

func (one part) finite() bool {
	for _, x := range one.floats {
		if !finite(float64(x)) {
			return false
		}
	}
	return true
}

// squares is the sum of level squared.
func (one part) squares() float64 {
	if one.ints != nil {
		return float64(dotInts(one.ints, one.ints))
	}
	total := 0.0
	for _, x := range one.floats {
		total += float64(float64(x) * float64(x))
	}
	return total
}

// dot is the sum of level times direction.
func (one part) dot(along []int8) float64 {
	if one.ints != nil {
		return float64(dotInts(one.ints, along))
	}
	total := 0.0
	for i, x := range one.floats {
		total += float64(float64(x) * float64(along[i]))
	}
	return total
}

func dotInts(a, b []int8) int64 {
	var total int64
	for i := range a {
		total += int64(a[i]) * int64(b[i])
	}
	return total
}

func normOf(scales, squares []float64) float64 {
	total := 0.0
	for t, square := range squares {
		if square != 0 {
			total += float64(float64(scales[t]*scales[t]) * square)
		}
	}
	return math.Sqrt(total)
}

// Direction is a version's step in fixed point, a slice a tensor.
type Direction struct {
	q      [][]int8
	scales []float64
	norm   float64
}

func directionOf(q [][]int8, scales []float64) *Direction {
	squares := make([]float64, len(q))
	for t, one := range q {
		squares[t] = float64(dotInts(one, one))
	}
	return &Direction{q, scales, normOf(scales, squares)}
}

func cosineOf(scales, dots []float64, norm float64, along *Direction) float64 {
	if along == nil || norm == 0 || along.norm == 0 {
		return 0
	}
	total := 0.0
	for t, dot := range dots {
		if dot != 0 {
			total += float64(float64(scales[t]*along.scales[t]) * dot)
		}
	}
	return math.Max(-1, math.Min(1, total/norm/along.norm))
}

func upperMedian(values []float64) float64 {
	ordered := append([]float64{}, values...)
	sort.Float64s(ordered)
	return ordered[len(ordered)/2]
}

func deviations(norm float64, history []float64) float64 {
	median := upperMedian(history)
	distances := make([]float64, len(history))
	for i, one := range history {
		distances[i] = math.Abs(one - median)
	}
	spread := math.Max(1.4826*upperMedian(distances), 0.1*median)
	if spread > 0 {
		return (norm - median) / spread
	}
	return 0
}

// addTo adds an accepted update's weights to the sums.
func addTo(sums []int64, parts []part, scales, squares []float64, weight int64, clip float64, exponent int) {
	factor := float64(weight) / 65536 * clip
	unit := math.Ldexp(1, exponent)
	at := 0
	for t, one := range parts {
		if one.ints != nil {
			var c int64
			if squares[t] != 0 {
				c = int64(math.RoundToEven(factor * scales[t] * unit))
			}
			for i, q := range one.ints {
				sums[at+i] += int64(q) * c
			}
			at += len(one.ints)
			continue
		}
		product := factor * unit
		for i, x := range one.floats {
			sums[at+i] += int64(math.RoundToEven(float64(x) * product))
		}
		at += len(one.floats)
	}
}

// addDigits adds weight times a value to its ten digits.
func addDigits(digits []int64, value float32, weight int64) {
	bits := math.Float32bits(value)
	mantissa, exponent := uint64(bits&0x7fffff), int(bits>>23&0xff)
	if exponent > 0 {
		mantissa |= 0x800000
		exponent--
	}
	whole := new(big.Int).SetUint64(mantissa)
	whole.Mul(whole, big.NewInt(weight)).Lsh(whole, uint(exponent))
	sign := int64(1)
	if bits>>31 == 1 {
		sign = -1
	}
	mask := big.NewInt(1<<32 - 1)
	for k := 0; whole.Sign() > 0; k++ {
		digits[k] += sign * new(big.Int).And(whole, mask).Int64()
		whole.Rsh(whole, 32)
	}
}

// joined is the ten digits as one number.
func joined(digits []int64) *big.Int {
	total := new(big.Int)
	for k := 9; k >= 0; k-- {
		total.Lsh(total, 32).Add(total, big.NewInt(digits[k]))
	}
	return total
}

// nearest is the binary32 nearest to a whole number of 2^-149 over a weight.
func nearest(total, weight *big.Int) float32 {
	below := new(big.Int).Lsh(weight, 149)
	mean, _ := new(big.Rat).SetFrac(total, below).Float32()
	return mean + 0 // no minus before a zero
}

// meanOf is the binary32 nearest to the ten digits over the weight.
func meanOf(digits []int64, weightTotal int64) float32 {
	return nearest(joined(digits), big.NewInt(weightTotal))
}

// scaled is number · weight / 65536, the nearest whole number, halves up.
func scaled(number, weight int64) int64 {
	high, low := number>>16, number&65535
	return high*weight + (low*weight+32768)>>16
}

// weightAfter is what is left of a window's weight.
func weightAfter(weightTotal, weight int64) int64 {
	if weightTotal == 0 || weight == 0 {
		return 0
	}
	return max64(1, scaled(weightTotal, weight))
}

// Total is what the windows of a version add up to: the weights after lateness, the buffers exactly.
type Total struct {
	size                 int              // of the weights
	buckets              map[int][]Bucket // by how many a window has
	values               []*big.Int
	weighs               *big.Int // of the buffers
	control              []int64
	bases                map[int64]int64 // what updates weigh, by the version that they answered
	updates, weightTotal int64
}

func newTotal(layout *Layout) *Total {
	total := &Total{
		size: layout.W, buckets: map[int][]Bucket{}, weighs: new(big.Int), control: make([]int64, layout.C), bases: map[int64]int64{},
	}
	for b := 0; b < layout.B; b++ {
		total.values = append(total.values, new(big.Int))
	}
	return total
}

// answer adds what the updates of a window weigh that answered versions, of which lateness leaves “weight“.
func (total *Total) answer(bases map[int64]int64, weight int64) {
	if weight == 0 {
		return
	}
	for base, weighs := range bases {
		total.bases[base] += weightAfter(weighs, weight)
	}
}

// add adds a window that keeps “weight“ of itself; nothing of one that was dropped. Its buckets weigh “buckets“.
func (total *Total) add(sums, buckets []int64, updates, weightTotal, weight int64) {
	if weight == 0 {
		return
	}
	total.updates += updates
	total.weightTotal += weightAfter(weightTotal, weight)
	total.weighs.Add(total.weighs, new(big.Int).Mul(big.NewInt(weightTotal), big.NewInt(weight)))
	if sums == nil {
		return
	}
	count := len(buckets)
	if total.buckets[count] == nil {
		for range buckets {
			total.buckets[count] = append(total.buckets[count], Bucket{sums: make([]int64, total.size)})
		}
	}
	for b := range buckets {
		known := &total.buckets[count][b]
		known.weight += weightAfter(buckets[b], weight)
		for i := range known.sums {
			known.sums[i] += scaled(sums[b*total.size+i], weight)
		}
	}
	for b, value := range total.values {
		at := count*total.size + 10*b
		value.Add(value, new(big.Int).Mul(joined(sums[at:at+10]), big.NewInt(weight)))
	}
	varied := sums[count*total.size+10*len(total.values):]
	for i := range total.control {
		total.control[i] += scaled(varied[i], weight)
	}
}
