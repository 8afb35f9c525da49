//! The part of Python's pickle format, protocol 2, that PyTorch writes state dicts in. A pickle is a program for a machine with a stack;
//! this machine has data alone: of what a program may name it knows tensors and their storages, and it calls nothing.

use std::collections::HashMap;

use safetensors::tensor::Dtype;

use crate::message::shorten;

/// What a program may name, by module and name.
const NAMES: &[(&str, &str, Name)] = &[
    ("collections", "OrderedDict", Name::Dict),
    ("torch._utils", "_rebuild_tensor_v2", Name::Tensor),
    ("torch", "FloatStorage", Name::Storage(Dtype::F32)),
    ("torch", "HalfStorage", Name::Storage(Dtype::F16)),
    ("torch", "BFloat16Storage", Name::Storage(Dtype::BF16)),
    ("torch", "LongStorage", Name::Storage(Dtype::I64)),
];

/// The most dimensions of a tensor.
const MAX_DIMENSIONS: usize = 8;
/// The longest key of a storage. PyTorch counts them: `0`, `1`, …
const MAX_STORAGE_KEY: usize = 255;

/// The most bytes that a program's values may take for each byte of the program. A state dict's take 8 to 13.
const MOST_HELD: usize = 16;
/// What they may take besides: tables of a few entries are not worth counting.
const LEAST_HELD: usize = 1 << 16;

/// A value's place in [`Pickle::values`]. Values refer to others by place, so that neither nesting nor repetition copies them.
pub(super) type Id = u32;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Name {
    Dict,
    Tensor,
    Storage(Dtype),
}

#[derive(Debug)]
pub(super) enum Value<'a> {
    None,
    Bool,
    Int(i64),
    Text(&'a str),
    Tuple(Box<[Id]>),
    Dict(Vec<(Id, Id)>),
    Name(Name),
    Storage(Box<Storage<'a>>),
    Tensor(Box<StridedTensor>),
}

impl Value<'_> {
    /// The bytes that a new value takes outside of itself.
    fn heap(&self) -> usize {
        match self {
            Value::Tuple(items) => size_of_val(&**items),
            Value::Storage(storage) => size_of_val(&**storage),
            Value::Tensor(tensor) => {
                size_of_val(&**tensor) + (tensor.shape.len() + tensor.strides.len()) * size_of::<usize>()
            }
            _ => 0,
        }
    }

    /// The value's kind, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Value::None => "None",
            Value::Bool => "a bool",
            Value::Int(_) => "a number",
            Value::Text(_) => "text",
            Value::Tuple(_) => "a tuple",
            Value::Dict(_) => "a dict",
            Value::Name(_) => "a name",
            Value::Storage(_) => "a storage",
            Value::Tensor(_) => "a tensor",
        }
    }
}

/// Elements that tensors lie in. They are outside of the program, in a place called `key`.
#[derive(Debug)]
pub(super) struct Storage<'a> {
    pub(super) dtype: Dtype,
    pub(super) key: &'a str,
    /// The number of elements.
    pub(super) len: usize,
}

/// A tensor: where its elements lie in a storage. Nothing says yet that the storage is so large.
#[derive(Debug)]
pub(super) struct StridedTensor {
    /// A [`Value::Storage`].
    pub(super) storage: Id,
    /// The place of the first element.
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    /// From one element to the next, along each dimension.
    pub(super) strides: Vec<usize>,
}

/// The values that a program made.
pub(super) struct Pickle<'a> {
    values: Vec<Value<'a>>,
    /// The value that the program ends with.
    pub(super) result: Id,
}

impl<'a> Pickle<'a> {
    /// Runs a program of less than 4 GiB. What it makes takes at most [`MOST_HELD`] times the program's bytes, and a little.
    ///
    /// # Errors
    /// The program is cut off, names something else than tensors, makes too many values, or does what state dicts have no use for.
    pub(super) fn read(program: &'a [u8]) -> Result<Pickle<'a>, String> {
        let (values, stack, marks, memo) = Default::default();
        let mut machine = Machine { program, at: 0, values, heap: 0, stack, marks, memo };
        let result = loop {
            let at = machine.at;
            let [op] = machine.array()?;
            if op == b'.' {
                break machine.pop()?;
            }
            let step = machine.step(op).and_then(|()| machine.check_held());
            step.map_err(|what| format!("at byte {at}: {what}"))?;
        };
        Ok(Pickle { values: machine.values, result })
    }

    pub(super) fn value(&self, id: Id) -> &Value<'a> {
        &self.values[id as usize]
    }
}

struct Machine<'a> {
    program: &'a [u8],
    at: usize,
    values: Vec<Value<'a>>,
    /// The bytes that the values take outside of `values`.
    heap: usize,
    stack: Vec<Id>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl<'a> Machine<'a> {
    /// Makes sure that what is held, with what is reserved for more, stays a small multiple of the program.
    fn check_held(&self) -> Result<(), String> {
        let held = self.heap
            + self.values.capacity() * size_of::<Value>()
            + self.stack.capacity() * size_of::<Id>()
            + self.marks.capacity() * size_of::<usize>()
            + self.memo.capacity() * size_of::<(u32, Id)>();
        let most = LEAST_HELD + MOST_HELD * self.program.len();
        match held <= most {
            true => Ok(()),
            false => Err(format!("expected values of at most {most} bytes, as a state dict has, found more")),
        }
    }

    fn value(&self, id: Id) -> &Value<'a> {
        &self.values[id as usize]
    }

    /// One instruction.
    fn step(&mut self, op: u8) -> Result<(), String> {
        match op {
            0x80 => match self.array()? {
                [2] => {}
                [other] => return Err(format!("expected pickle protocol 2, found {other}")),
            },
            b'(' => self.marks.push(self.stack.len()),
            b'N' => self.push(Value::None),
            0x88 | 0x89 => self.push(Value::Bool),
            b'J' => {
                let number = i32::from_le_bytes(self.array()?);
                self.push(Value::Int(number.into()));
            }
            b'K' => {
                let [number] = self.array()?;
                self.push(Value::Int(number.into()));
            }
            b'M' => {
                let number = u16::from_le_bytes(self.array()?);
                self.push(Value::Int(number.into()));
            }
            0x8a => self.long()?,
            b'X' => {
                let length = u32::from_le_bytes(self.array()?);
                let text = self.take(length as usize)?;
                let text = std::str::from_utf8(text).map_err(|_| "expected UTF-8".to_string())?;
                self.push(Value::Text(text));
            }
            b'}' => self.push(Value::Dict(Vec::new())),
            b')' => self.push(Value::Tuple(Box::default())),
            b't' => {
                let items = self.pop_to_mark()?;
                self.push(Value::Tuple(items.into()));
            }
            0x85..=0x87 => {
                let items = self.pop_many(usize::from(op - 0x84))?;
                self.push(Value::Tuple(items.into()));
            }
            b'q' | b'r' | b'h' | b'j' => self.remember_or_recall(op)?,
            b'c' => self.name()?,
            b'Q' => self.storage()?,
            b'R' => self.reduce()?,
            b's' => {
                let items = self.pop_many(2)?;
                self.set_items(&items)?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.set_items(&items)?;
            }
            // The attributes of a state dict: versions of its modules.
            b'b' => {
                self.pop()?;
                self.dict()?;
            }
            other => return Err(format!("instruction {other:#04x}: none that a state dict needs")),
        }
        Ok(())
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let rest = &self.program[self.at..];
        let taken = rest.get(..length).ok_or_else(|| {
            format!("expected {length} more bytes after byte {}, found {} (truncated?)", self.at, rest.len())
        })?;
        self.at += length;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        Ok(self.take(N)?.try_into().expect("as many as asked for"))
    }

    /// A line without its end.
    fn line(&mut self) -> Result<&'a str, String> {
        let rest = &self.program[self.at..];
        let length = rest.iter().position(|byte| *byte == b'\n').ok_or("expected the end of a line")?;
        let line = self.take(length + 1)?;
        std::str::from_utf8(&line[..length]).map_err(|_| "expected UTF-8".to_string())
    }

    fn push(&mut self, value: Value<'a>) {
        self.heap += value.heap();
        self.stack.push(self.values.len() as Id); // fewer than the program has bytes
        self.values.push(value);
    }

    fn pop(&mut self) -> Result<Id, String> {
        Ok(self.pop_many(1)?[0])
    }

    /// The last `count` values, in the order in which they were pushed, none from below the last mark.
    fn pop_many(&mut self, count: usize) -> Result<Vec<Id>, String> {
        let above = self.stack.len() - self.marks.last().copied().unwrap_or(0);
        if above < count {
            return Err(format!("expected {count} values on the stack, found {above}"));
        }
        Ok(self.stack.split_off(self.stack.len() - count))
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>, String> {
        let mark = self.marks.pop().ok_or("expected a mark on the stack, found none")?;
        Ok(self.stack.split_off(mark))
    }

    /// A whole number of up to eight bytes.
    fn long(&mut self) -> Result<(), String> {
        let [length] = self.array()?;
        let bytes = self.take(length.into())?;
        if bytes.len() > 8 {
            return Err(format!("expected a number of at most 8 bytes, found {length}"));
        }
        let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let mut all = [if negative { 0xff } else { 0 }; 8];
        all[..bytes.len()].copy_from_slice(bytes);
        self.push(Value::Int(i64::from_le_bytes(all)));
        Ok(())
    }

    fn remember_or_recall(&mut self, op: u8) -> Result<(), String> {
        let number = match op {
            b'q' | b'h' => self.array::<1>()?[0].into(),
            _ => u32::from_le_bytes(self.array()?),
        };
        if matches!(op, b'q' | b'r') {
            let last = self.stack.last().ok_or("expected a value on the stack, found none")?;
            self.memo.insert(number, *last);
        } else {
            let id = self.memo.get(&number).ok_or_else(|| format!("no value has the number {number}"))?;
            self.stack.push(*id);
        }
        Ok(())
    }

    fn name(&mut self) -> Result<(), String> {
        let (module, name) = (self.line()?, self.line()?);
        let known = NAMES.iter().find(|(m, n, _)| (*m, *n) == (module, name));
        let (.., known) = known.ok_or_else(|| {
            let asked = shorten(&format!("{module}.{name}"));
            format!("asks for {asked}: only plain tensors are read, and nothing is ever called")
        })?;
        self.push(Value::Name(*known));
        Ok(())
    }

    /// ("storage", type, key, device, number of elements) → a storage.
    fn storage(&mut self) -> Result<(), String> {
        let id = self.pop()?;
        let bad = || "a storage: expected (\"storage\", type, key, device, size)".to_string();
        let Value::Tuple(parts) = self.value(id) else { return Err(bad()) };
        let &[label, dtype, key, _, len] = &parts[..] else { return Err(bad()) };
        let [label, dtype, key, len] = [label, dtype, key, len].map(|id| self.value(id));
        match (label, dtype, key, len) {
            (
                Value::Text("storage"),
                Value::Name(Name::Storage(dtype)),
                &Value::Text(key),
                &Value::Int(len),
            ) if key.len() <= MAX_STORAGE_KEY => {
                let len = usize::try_from(len).map_err(|_| format!("a storage: a size of {len}"))?;
                self.push(Value::Storage(Box::new(Storage { dtype: *dtype, key, len })));
                Ok(())
            }
            _ => Err(bad()),
        }
    }

    /// What looks like a call: an empty dict, or a tensor out of a storage.
    fn reduce(&mut self) -> Result<(), String> {
        let ids = self.pop_many(2)?;
        let made = match (self.value(ids[0]), self.value(ids[1])) {
            (Value::Name(Name::Dict), Value::Tuple(parts)) if parts.is_empty() => Value::Dict(Vec::new()),
            (Value::Name(Name::Tensor), Value::Tuple(parts)) => self.tensor(parts)?,
            (what, with) => {
                let (what, with) = (what.kind(), with.kind());
                return Err(format!("expected a tensor or an empty dict, found {what} of {with}"));
            }
        };
        self.push(made);
        Ok(())
    }

    /// (storage, offset, shape, strides, requires_grad, hooks) → a tensor.
    fn tensor(&self, parts: &[Id]) -> Result<Value<'a>, String> {
        let bad = || "a tensor: expected (storage, offset, shape, strides, …)".to_string();
        let &[storage, offset, shape, strides, ..] = parts else { return Err(bad()) };
        let Value::Storage(_) = self.value(storage) else { return Err(bad()) };
        let size = |id: Id| match self.value(id) {
            Value::Int(size) => usize::try_from(*size).map_err(|_| format!("a tensor: a size of {size}")),
            _ => Err(bad()),
        };
        let sizes = |id: Id| match self.value(id) {
            Value::Tuple(ids) if ids.len() > MAX_DIMENSIONS => {
                Err(format!("a tensor: expected at most {MAX_DIMENSIONS} dimensions, found {}", ids.len()))
            }
            Value::Tuple(ids) => ids.iter().map(|id| size(*id)).collect::<Result<Vec<_>, _>>(),
            _ => Err(bad()),
        };
        let (offset, shape, strides) = (size(offset)?, sizes(shape)?, sizes(strides)?);
        if shape.len() != strides.len() {
            return Err(format!("a tensor of {} dimensions has {} strides", shape.len(), strides.len()));
        }
        Ok(Value::Tensor(Box::new(StridedTensor { storage, offset, shape, strides })))
    }

    /// The dict on top of the stack.
    fn dict(&mut self) -> Result<&mut Vec<(Id, Id)>, String> {
        let top = *self.stack.last().ok_or("expected a dict on the stack, found nothing")?;
        match &mut self.values[top as usize] {
            Value::Dict(items) => Ok(items),
            other => Err(format!("expected a dict, found {}", other.kind())),
        }
    }

    /// Keys and values in turn.
    fn set_items(&mut self, items: &[Id]) -> Result<(), String> {
        let (pairs, rest) = items.as_chunks::<2>();
        if !rest.is_empty() {
            return Err("a key without a value".into());
        }
        let dict = self.dict()?;
        let before = dict.capacity();
        dict.extend(pairs.iter().map(|[key, value]| (*key, *value)));
        let more = dict.capacity() - before;
        self.heap += more * size_of::<(Id, Id)>();
        Ok(())
    }
}
