"""The function that makes quick calls, in LLVM's language: what `fnflare.compiler.fastcall` compiles once.

It takes what a built-in function of CPython takes, finds the table of its program in the object that it belongs to, and
does what the table says; the rows of the table are those that `fastcall` writes. Everything that it needs of Python and
NumPy it calls by names that begin with ``fnflare_``, whose addresses `fastcall` gives to the linker.
"""

__all__ = ["HEADER", "PYTHON", "TEXT"]

#: Functions of Python's C interface.
PYTHON = (
    "PyObject_Vectorcall",
    "PyList_New",
    "PyList_SetItem",
    "PyList_Size",
    "PyList_GetItem",
    "PyList_SetSlice",
    "PyList_Append",
    "PyLong_AsLongLong",
    "PyErr_Occurred",
    "PyErr_Clear",
    "PyEval_SaveThread",
    "PyEval_RestoreThread",
    "Py_IncRef",
    "Py_DecRef",
)
#: How many numbers a table begins with.
HEADER = 16

#: In an object its type is found 8 bytes from its beginning, the value of a number at 16; in an array the address of
#: its data at 16, the number of its axes at 24, the address of its shape at 32, its descriptor at 56, its flags at 64.
TEXT = """
declare ptr @fnflare_PyObject_Vectorcall(ptr, ptr, i64, ptr)
declare ptr @fnflare_PyList_New(i64)
declare i32 @fnflare_PyList_SetItem(ptr, i64, ptr)
declare i64 @fnflare_PyList_Size(ptr)
declare ptr @fnflare_PyList_GetItem(ptr, i64)
declare i32 @fnflare_PyList_SetSlice(ptr, i64, i64, ptr)
declare i32 @fnflare_PyList_Append(ptr, ptr)
declare i64 @fnflare_PyLong_AsLongLong(ptr)
declare ptr @fnflare_PyErr_Occurred()
declare void @fnflare_PyErr_Clear()
declare ptr @fnflare_PyEval_SaveThread()
declare void @fnflare_PyEval_RestoreThread(ptr)
declare void @fnflare_Py_IncRef(ptr)
declare void @fnflare_Py_DecRef(ptr)
declare ptr @fnflare_PyArray_New(ptr, i32, ptr, i32, ptr, ptr, i32, i32, ptr)
declare ptr @fnflare_PyArray_Scalar(ptr, ptr, ptr)
declare ptr @fnflare_PyArray_NewCopy(ptr, i32)

define private i64 @word(ptr %table, i64 %n) alwaysinline {
  %at = getelementptr i64, ptr %table, i64 %n
  %value = load i64, ptr %at
  ret i64 %value
}

define private ptr @pointer(ptr %table, i64 %n) alwaysinline {
  %at = getelementptr ptr, ptr %table, i64 %n
  %value = load ptr, ptr %at
  ret ptr %value
}

define private i32 @give(ptr %pool, ptr %block) {
  %any = icmp ne ptr %block, null
  br i1 %any, label %append, label %end
append:
  %error = call i32 @fnflare_PyList_Append(ptr %pool, ptr %block)
  call void @fnflare_Py_DecRef(ptr %block)
  ret i32 %error
end:
  ret i32 0
}

; whether an array has a shape
define private i1 @shaped(ptr %x, i64 %axes, ptr %shape) {
  %axes.at = getelementptr i8, ptr %x, i64 24
  %axes.there = load i32, ptr %axes.at
  %axes.wide = sext i32 %axes.there to i64
  %as.many = icmp eq i64 %axes.wide, %axes
  br i1 %as.many, label %lengths, label %no
lengths:
  %there = call ptr @pointer(ptr %x, i64 4)
  br label %head
head:
  %i = phi i64 [0, %lengths], [%next, %tail]
  %more = icmp slt i64 %i, %axes
  br i1 %more, label %body, label %yes
body:
  %a = call i64 @word(ptr %there, i64 %i)
  %b = call i64 @word(ptr %shape, i64 %i)
  %same = icmp eq i64 %a, %b
  br i1 %same, label %tail, label %no
tail:
  %next = add i64 %i, 1
  br label %head
yes:
  ret i1 true
no:
  ret i1 false
}

; whether each donated argument lies apart from all others
define private i1 @apart(ptr %table, ptr %buffers, i64 %inputs) {
entry:
  br label %head
head:
  %i = phi i64 [0, %entry], [%i.next, %tail]
  %more = icmp slt i64 %i, %inputs
  br i1 %more, label %body, label %yes
body:
  %i9 = mul i64 %i, 9
  %i.number = add i64 %i9, 16
  %i.row = getelementptr i64, ptr %table, i64 %i.number
  %flags = call i64 @word(ptr %i.row, i64 5)
  %own = and i64 %flags, 4
  %donated = icmp ne i64 %own, 0
  br i1 %donated, label %others, label %tail
others:
  %i.place = call i64 @word(ptr %i.row, i64 0)
  %i.size = call i64 @word(ptr %i.row, i64 8)
  %i.begin = call i64 @word(ptr %buffers, i64 %i.place)
  %i.end = add i64 %i.begin, %i.size
  br label %other.head
other.head:
  %j = phi i64 [0, %others], [%j.next, %other.tail]
  %j.more = icmp slt i64 %j, %inputs
  br i1 %j.more, label %other, label %tail
other:
  %itself = icmp eq i64 %i, %j
  br i1 %itself, label %other.tail, label %compare
compare:
  %j9 = mul i64 %j, 9
  %j.number = add i64 %j9, 16
  %j.row = getelementptr i64, ptr %table, i64 %j.number
  %j.place = call i64 @word(ptr %j.row, i64 0)
  %j.size = call i64 @word(ptr %j.row, i64 8)
  %j.begin = call i64 @word(ptr %buffers, i64 %j.place)
  %j.end = add i64 %j.begin, %j.size
  %before = icmp ule i64 %i.end, %j.begin
  %behind = icmp ule i64 %j.end, %i.begin
  %apart = or i1 %before, %behind
  br i1 %apart, label %other.tail, label %no
other.tail:
  %j.next = add i64 %j, 1
  br label %other.head
tail:
  %i.next = add i64 %i, 1
  br label %head
yes:
  ret i1 true
no:
  ret i1 false
}

define ptr @fnflare_call(ptr %self, ptr %args, i64 %nargs) {
entry:
  %table = call ptr @pointer(ptr %self, i64 2)
  %main = call ptr @pointer(ptr %table, i64 0)
  %fallback = call ptr @pointer(ptr %table, i64 1)
  %array.type = call ptr @pointer(ptr %table, i64 2)
  %inputs = call i64 @word(ptr %table, i64 3)
  %outputs = call i64 @word(ptr %table, i64 4)
  %count = call i64 @word(ptr %table, i64 5)
  %fixed = call i64 @word(ptr %table, i64 6)
  %pool = call ptr @pointer(ptr %table, i64 7)
  %need = call i64 @word(ptr %table, i64 8)
  %release = call i64 @word(ptr %table, i64 9)
  %sizes = call ptr @pointer(ptr %table, i64 10)
  %none = call ptr @pointer(ptr %table, i64 11)
  %true = call ptr @pointer(ptr %table, i64 12)
  %fixed.from = call i64 @word(ptr %table, i64 13)
  %outputs.from = call i64 @word(ptr %table, i64 14)
  %donates = call i64 @word(ptr %table, i64 15)
  %right = icmp eq i64 %nargs, %inputs
  br i1 %right, label %room, label %else

room:
  %buffers = alloca ptr, i64 %count, align 16
  %numbers = alloca i64, i64 %inputs, align 16
  %scalars = alloca i64, i64 %outputs, align 16
  br label %inputs.head

; -- where the arguments lie
inputs.head:
  %i = phi i64 [0, %room], [%i.next, %inputs.tail]
  %more = icmp slt i64 %i, %inputs
  br i1 %more, label %input, label %inputs.end
input:
  %i9 = mul i64 %i, 9
  %row.number = add i64 %i9, 16
  %row = getelementptr i64, ptr %table, i64 %row.number
  %place = call i64 @word(ptr %row, i64 0)
  %unread = icmp slt i64 %place, 0
  br i1 %unread, label %inputs.tail, label %read
read:
  %x = call ptr @pointer(ptr %args, i64 %i)
  %type = call ptr @pointer(ptr %x, i64 1)
  %x.value = getelementptr i8, ptr %x, i64 16
  %is.array = icmp eq ptr %type, %array.type
  br i1 %is.array, label %array, label %scalar
array:
  %descriptor = call ptr @pointer(ptr %x, i64 7)
  %expected = call ptr @pointer(ptr %row, i64 1)
  %same.dtype = icmp eq ptr %descriptor, %expected
  %flags.at = getelementptr i8, ptr %x, i64 64
  %flags = load i32, ptr %flags.at
  %flags.wide = zext i32 %flags to i64
  %needed = call i64 @word(ptr %row, i64 5)
  %found.flags = and i64 %flags.wide, %needed
  %plain = icmp eq i64 %found.flags, %needed
  %fits = and i1 %same.dtype, %plain
  br i1 %fits, label %array.shape, label %else
array.shape:
  %axes.wanted = call i64 @word(ptr %row, i64 6)
  %any.shape = icmp slt i64 %axes.wanted, 0
  br i1 %any.shape, label %array.data, label %array.lengths
array.lengths:
  %shape.wanted = call ptr @pointer(ptr %row, i64 7)
  %is.shaped = call i1 @shaped(ptr %x, i64 %axes.wanted, ptr %shape.wanted)
  br i1 %is.shaped, label %array.data, label %else
array.data:
  %data = load ptr, ptr %x.value
  br label %input.done
scalar:
  %scalar.type = call ptr @pointer(ptr %row, i64 2)
  %is.scalar = icmp eq ptr %type, %scalar.type
  br i1 %is.scalar, label %input.done, label %number
number:
  %number.type = call ptr @pointer(ptr %row, i64 3)
  %is.number = icmp eq ptr %type, %number.type
  br i1 %is.number, label %convert, label %else
convert:
  %how = call i64 @word(ptr %row, i64 4)
  %here = getelementptr i64, ptr %numbers, i64 %i
  switch i64 %how, label %input.done [i64 1, label %integer i64 2, label %truth]
integer:
  %long = call i64 @fnflare_PyLong_AsLongLong(ptr %x)
  store i64 %long, ptr %here
  %odd = icmp eq i64 %long, -1
  br i1 %odd, label %integer.check, label %input.done
integer.check:
  %error = call ptr @fnflare_PyErr_Occurred()
  %fine = icmp eq ptr %error, null
  br i1 %fine, label %input.done, label %too.large
too.large:
  call void @fnflare_PyErr_Clear()
  br label %else
truth:
  %is.true = icmp eq ptr %x, %true
  %byte = zext i1 %is.true to i8
  store i8 %byte, ptr %here
  br label %input.done
input.done:
  %from = phi ptr [%data, %array.data], [%x.value, %scalar], [%x.value, %convert], [%here, %integer],
    [%here, %integer.check], [%here, %truth]
  %to = getelementptr ptr, ptr %buffers, i64 %place
  store ptr %from, ptr %to
  br label %inputs.tail
inputs.tail:
  %i.next = add i64 %i, 1
  br label %inputs.head

inputs.end:
  %any.donated = icmp ne i64 %donates, 0
  br i1 %any.donated, label %donated, label %scratch
donated:
  %are.apart = call i1 @apart(ptr %table, ptr %buffers, i64 %inputs)
  br i1 %are.apart, label %scratch, label %else

; -- scratch memory: the block that was given back last, if it is large enough
scratch:
  %any.scratch = icmp ne i64 %need, 0
  br i1 %any.scratch, label %look, label %fix
look:
  %free = call i64 @fnflare_PyList_Size(ptr %pool)
  %some = icmp sgt i64 %free, 0
  br i1 %some, label %measure, label %else
measure:
  %last = sub i64 %free, 1
  %last.block = call ptr @fnflare_PyList_GetItem(ptr %pool, i64 %last)
  %lengths = call ptr @pointer(ptr %last.block, i64 4)
  %length = load i64, ptr %lengths
  %enough = icmp uge i64 %length, %need
  br i1 %enough, label %take, label %else
take:
  call void @fnflare_Py_IncRef(ptr %last.block)
  %last.base = call ptr @pointer(ptr %last.block, i64 2)
  %not.taken = call i32 @fnflare_PyList_SetSlice(ptr %pool, i64 %last, i64 %free, ptr null)
  %taken = icmp eq i32 %not.taken, 0
  br i1 %taken, label %fix, label %failed.first
failed.first:
  call void @fnflare_Py_DecRef(ptr %last.block)
  ret ptr null
fix:
  %block = phi ptr [null, %scratch], [%last.block, %take]
  %base = phi ptr [null, %scratch], [%last.base, %take]
  %base.number = ptrtoint ptr %base to i64
  br label %fixed.head
fixed.head:
  %j = phi i64 [0, %fix], [%j.next, %fixed.body]
  %j.more = icmp slt i64 %j, %fixed
  br i1 %j.more, label %fixed.body, label %list.new
fixed.body:
  %j3 = mul i64 %j, 3
  %j.number = add i64 %j3, %fixed.from
  %j.row = getelementptr i64, ptr %table, i64 %j.number
  %j.place = call i64 @word(ptr %j.row, i64 0)
  %j.value = call i64 @word(ptr %j.row, i64 1)
  %j.mask = call i64 @word(ptr %j.row, i64 2)
  %j.base = and i64 %base.number, %j.mask
  %j.address = add i64 %j.value, %j.base
  %j.to = getelementptr i64, ptr %buffers, i64 %j.place
  store i64 %j.address, ptr %j.to
  %j.next = add i64 %j, 1
  br label %fixed.head

; -- the answers; each is in the list before any other thread can see it
list.new:
  %list = call ptr @fnflare_PyList_New(i64 %outputs)
  %list.there = icmp ne ptr %list, null
  br i1 %list.there, label %outputs.head, label %failed.early
failed.early:
  %early = call i32 @give(ptr %pool, ptr %block)
  ret ptr null
outputs.head:
  %k = phi i64 [0, %list.new], [%k.next, %keep]
  %k.more = icmp slt i64 %k, %outputs
  br i1 %k.more, label %output, label %run
output:
  %k6 = mul i64 %k, 6
  %k.number = add i64 %k6, %outputs.from
  %k.row = getelementptr i64, ptr %table, i64 %k.number
  %kind = call i64 @word(ptr %k.row, i64 0)
  %which = call i64 @word(ptr %k.row, i64 1)
  switch i64 %kind, label %make [i64 1, label %later i64 2, label %pass i64 3, label %object i64 4, label %copy
    i64 5, label %repeat]
make:
  %number64 = call i64 @word(ptr %k.row, i64 2)
  %type.number = trunc i64 %number64 to i32
  %axes64 = call i64 @word(ptr %k.row, i64 3)
  %axes = trunc i64 %axes64 to i32
  %shape = call ptr @pointer(ptr %k.row, i64 4)
  %new = call ptr @fnflare_PyArray_New(ptr %array.type, i32 %axes, ptr %shape, i32 %type.number, ptr null, ptr null,
    i32 0, i32 0, ptr null)
  %new.there = icmp ne ptr %new, null
  br i1 %new.there, label %made, label %failed
made:
  %new.data = call ptr @pointer(ptr %new, i64 2)
  %new.to = getelementptr ptr, ptr %buffers, i64 %which
  store ptr %new.data, ptr %new.to
  br label %keep
later:
  %later.at = getelementptr i64, ptr %scalars, i64 %k
  %later.to = getelementptr ptr, ptr %buffers, i64 %which
  store ptr %later.at, ptr %later.to
  call void @fnflare_Py_IncRef(ptr %none)
  br label %keep
pass:
  %passed = call ptr @pointer(ptr %args, i64 %which)
  call void @fnflare_Py_IncRef(ptr %passed)
  br label %keep
object:
  %same.object = call ptr @pointer(ptr %k.row, i64 5)
  call void @fnflare_Py_IncRef(ptr %same.object)
  br label %keep
copy:
  %original = call ptr @pointer(ptr %k.row, i64 5)
  %copied = call ptr @fnflare_PyArray_NewCopy(ptr %original, i32 0)
  %copied.there = icmp ne ptr %copied, null
  br i1 %copied.there, label %keep, label %failed
repeat:  ; when the first one is there
  call void @fnflare_Py_IncRef(ptr %none)
  br label %keep
keep:
  %item = phi ptr [%new, %made], [%none, %later], [%passed, %pass], [%same.object, %object], [%copied, %copy],
    [%none, %repeat]
  %ok = call i32 @fnflare_PyList_SetItem(ptr %list, i64 %k, ptr %item)
  %k.next = add i64 %k, 1
  br label %outputs.head

run:
  %let.go = icmp ne i64 %release, 0
  br i1 %let.go, label %run.free, label %run.held
run.free:
  %thread = call ptr @fnflare_PyEval_SaveThread()
  call void %main(ptr %buffers, ptr %sizes)
  call void @fnflare_PyEval_RestoreThread(ptr %thread)
  br label %ran
run.held:
  call void %main(ptr %buffers, ptr %sizes)
  br label %ran
ran:
  %given = call i32 @give(ptr %pool, ptr %block)
  %lost = icmp ne i32 %given, 0
  br i1 %lost, label %forget, label %scalars.head
forget:  ; the next call makes another one
  call void @fnflare_PyErr_Clear()
  br label %scalars.head

; -- answers without axes, and those that are there already
scalars.head:
  %n = phi i64 [0, %ran], [0, %forget], [%n.next, %scalars.tail]
  %n.more = icmp slt i64 %n, %outputs
  br i1 %n.more, label %scalars.body, label %end
scalars.body:
  %n6 = mul i64 %n, 6
  %n.number = add i64 %n6, %outputs.from
  %n.row = getelementptr i64, ptr %table, i64 %n.number
  %n.kind = call i64 @word(ptr %n.row, i64 0)
  switch i64 %n.kind, label %scalars.tail [i64 1, label %wrap i64 5, label %again]
again:
  %n.first = call i64 @word(ptr %n.row, i64 1)
  %first = call ptr @fnflare_PyList_GetItem(ptr %list, i64 %n.first)
  %first.type = call ptr @pointer(ptr %first, i64 1)
  %first.is.array = icmp eq ptr %first.type, %array.type
  br i1 %first.is.array, label %again.array, label %again.number
again.array:
  %another = call ptr @fnflare_PyArray_NewCopy(ptr %first, i32 0)
  %another.there = icmp ne ptr %another, null
  br i1 %another.there, label %again.keep, label %failed.late
again.number:
  call void @fnflare_Py_IncRef(ptr %first)
  br label %again.keep
again.keep:
  %repeated = phi ptr [%another, %again.array], [%first, %again.number]
  %again.ok = call i32 @fnflare_PyList_SetItem(ptr %list, i64 %n, ptr %repeated)
  br label %scalars.tail
wrap:
  %n.descriptor = call ptr @pointer(ptr %n.row, i64 5)
  %n.at = getelementptr i64, ptr %scalars, i64 %n
  %wrapped = call ptr @fnflare_PyArray_Scalar(ptr %n.at, ptr %n.descriptor, ptr null)
  %wrapped.there = icmp ne ptr %wrapped, null
  br i1 %wrapped.there, label %replace, label %failed.late
replace:
  %n.ok = call i32 @fnflare_PyList_SetItem(ptr %list, i64 %n, ptr %wrapped)
  br label %scalars.tail
scalars.tail:
  %n.next = add i64 %n, 1
  br label %scalars.head
end:
  ret ptr %list

failed:
  %late = call i32 @give(ptr %pool, ptr %block)
  br label %failed.late
failed.late:
  call void @fnflare_Py_DecRef(ptr %list)
  ret ptr null

else:
  %answer = call ptr @fnflare_PyObject_Vectorcall(ptr %fallback, ptr %args, i64 %nargs, ptr null)
  ret ptr %answer
}
"""
