package op

// families is every operator family, one file each.
var families = [][]Def{
	shapeFamily,
	moveFamily,
	constantFamily,
	castFamily,
	gatherFamily,
	padFamily,
	whereFamily,
	binaryFamily,
	convFamily,
	activationFamily,
	normFamily,
	quantizeFamily,
	softmaxFamily,
	poolFamily,
	resizeFamily,
	gemmFamily,
	reduceFamily,
	argFamily,
}
