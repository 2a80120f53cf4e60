package main

import (
	"bytes"
	"fmt"
	"math"
	"time"
)

// The picture: both axes are logarithmic.
const (
	width, height         = 760, 420
	left, right           = 70, 210
	top, bottom           = 36, 48
	leastX, mostX         = 100, 200_000
	leastY, mostY         = float64(time.Millisecond), 300 * float64(time.Second)
	plotWidth, plotHeight = width - left - right, height - top - bottom
)

func x(messages float64) float64 {
	return left + plotWidth*math.Log(messages/leastX)/math.Log(mostX/leastX)
}

func y(ns float64) float64 {
	return height - bottom - plotHeight*math.Log(max(ns, leastY)/leastY)/math.Log(mostY/leastY)
}

// draw returns the picture as SVG, readable on a light and on a dark page.
func draw(all []*curve) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", width, height)
	b.WriteString("<title>How long tasks stand still, by the length of one queue</title>\n")
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#ffffff"/>`+"\n", width, height)
	fmt.Fprintf(&b, `<text x="%d" y="20" font-size="14">How long the tasks stand still, by the messages in one queue (1 byte each)</text>`+"\n", left)
	fmt.Fprintf(&b, `<text x="%d" y="%d">hollow: not criu itself but a program that copies as it does</text>`+"\n", left+8, top+16)
	grid(&b)
	labels := 0.0
	for _, c := range all {
		c.draw(&b, &labels)
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

func grid(b *bytes.Buffer) {
	for n := 100.0; n <= mostX; n *= 10 {
		line(b, x(n), top, x(n), height-bottom)
		fmt.Fprintf(b, `<text x="%.1f" y="%d" text-anchor="middle">%s</text>`+"\n", x(n), height-bottom+18, thousands(n))
	}
	for ns := leastY; ns <= mostY; ns *= 10 {
		line(b, left, y(ns), width-right, y(ns))
		fmt.Fprintf(b, `<text x="%d" y="%.1f" text-anchor="end">%v</text>`+"\n", left-8, y(ns)+4, time.Duration(ns))
	}
	fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="middle">messages in the queue</text>`+"\n", left+plotWidth/2, height-10)
}

func line(b *bytes.Buffer, x1, y1, x2, y2 float64) {
	fmt.Fprintf(b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#cccccc"/>`+"\n", x1, y1, x2, y2)
}

func thousands(n float64) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%v,000", n/1000)
}

// draw draws the curve, and its name at its end, clear of the one before.
func (c *curve) draw(b *bytes.Buffer, labels *float64) {
	if len(c.points) == 0 {
		return
	}
	fmt.Fprintf(b, `<polyline fill="none" stroke="%s" stroke-width="2" points="`, c.color)
	for _, p := range c.points {
		fmt.Fprintf(b, "%.1f,%.1f ", x(float64(p.messages)), y(float64(p.took)))
	}
	b.WriteString("\"/>\n")
	for _, p := range c.points {
		inside := c.color
		if p.beyond {
			inside = "#ffffff"
		}
		fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="3" fill="%s" stroke="%s"/>`+"\n", x(float64(p.messages)), y(float64(p.took)), inside, c.color)
	}
	last := c.points[len(c.points)-1]
	at := max(y(float64(last.took))+4, *labels+16)
	*labels = at
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" fill="%s">%s: %v</text>`+"\n",
		x(float64(last.messages))+8, at, c.color, c.name, rounded(last.took))
}

func rounded(d time.Duration) time.Duration {
	if d > time.Second {
		return d.Round(100 * time.Millisecond)
	}
	return d.Round(time.Millisecond)
}
