// Tells ThreadSanitizer what orders threads in GLib and GStreamer, which are not compiled for it: GMutex and GCond are futexes
// that it does not see, reference counts are atomics in code that it does not see, and the items of a thread pool change
// threads under a lock of GLib's own. What is told here is what these functions promise, and no more.
//
// Linked into the tests, whose symbols are found before those of the libraries; calls inside one library stay unseen.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <glib-object.h>
#include <gst/gst.h>
#include <stdlib.h>

void __tsan_acquire(void *);
void __tsan_release(void *);

#define REAL(function) \
    static __typeof__(&function) real; \
    if (!__atomic_load_n(&real, __ATOMIC_ACQUIRE)) \
        __atomic_store_n(&real, (__typeof__(&function))dlsym(RTLD_NEXT, #function), __ATOMIC_RELEASE)

void g_mutex_lock(GMutex *mutex) {
    REAL(g_mutex_lock);
    real(mutex);
    __tsan_acquire(mutex);
}

gboolean g_mutex_trylock(GMutex *mutex) {
    REAL(g_mutex_trylock);
    gboolean locked = real(mutex);
    if (locked)
        __tsan_acquire(mutex);
    return locked;
}

void g_mutex_unlock(GMutex *mutex) {
    REAL(g_mutex_unlock);
    __tsan_release(mutex);
    real(mutex);
}

void g_cond_wait(GCond *cond, GMutex *mutex) {
    REAL(g_cond_wait);
    __tsan_release(mutex);
    real(cond, mutex);
    __tsan_acquire(mutex);
}

gboolean g_cond_wait_until(GCond *cond, GMutex *mutex, gint64 end) {
    REAL(g_cond_wait_until);
    __tsan_release(mutex);
    gboolean signalled = real(cond, mutex, end);
    __tsan_acquire(mutex);
    return signalled;
}

// The last one who lets go of an object is after all that the others did with it.
void g_object_unref(gpointer object) {
    REAL(g_object_unref);
    __tsan_release(object);
    __tsan_acquire(object);
    real(object);
}

void gst_object_unref(gpointer object) {
    REAL(gst_object_unref);
    __tsan_release(object);
    __tsan_acquire(object);
    real(object);
}

// Buffers' memory is let go of inside of GStreamer, and so are those in lists.
static void let_go(GstMiniObject *object) {
    if (object->type == GST_TYPE_BUFFER) {
        GstBuffer *buffer = (GstBuffer *)object;
        for (guint i = 0; i < gst_buffer_n_memory(buffer); i++) {
            GstMemory *memory = gst_buffer_peek_memory(buffer, i);
            __tsan_release(memory);
            __tsan_acquire(memory);
        }
    } else if (object->type == GST_TYPE_BUFFER_LIST) {
        GstBufferList *list = (GstBufferList *)object;
        for (guint i = 0; i < gst_buffer_list_length(list); i++)
            let_go((GstMiniObject *)gst_buffer_list_get(list, i));
    }
    __tsan_release(object);
    __tsan_acquire(object);
}

void gst_mini_object_unref(GstMiniObject *object) {
    REAL(gst_mini_object_unref);
    let_go(object);
    real(object);
}

// Which lets go of the original when it makes a copy.
GstMiniObject *gst_mini_object_make_writable(GstMiniObject *object) {
    REAL(gst_mini_object_make_writable);
    let_go(object);
    return real(object);
}

// What is handed over is let go of, too; and by whoever got it, when that did not keep it.
GstFlowReturn gst_pad_push(GstPad *pad, GstBuffer *buffer) {
    REAL(gst_pad_push);
    let_go((GstMiniObject *)buffer);
    GstFlowReturn flow = real(pad, buffer);
    __tsan_release(buffer);
    return flow;
}

GstFlowReturn gst_pad_push_list(GstPad *pad, GstBufferList *list) {
    REAL(gst_pad_push_list);
    let_go((GstMiniObject *)list);
    return real(pad, list);
}

gboolean gst_pad_push_event(GstPad *pad, GstEvent *event) {
    REAL(gst_pad_push_event);
    let_go((GstMiniObject *)event);
    return real(pad, event);
}

gboolean gst_element_post_message(GstElement *element, GstMessage *message) {
    REAL(gst_element_post_message);
    let_go((GstMiniObject *)message);
    // What is in it is freed inside of GStreamer, unless somebody still has it.
    gst_message_ref(message);
    gboolean posted = real(element, message);
    gst_mini_object_unref((GstMiniObject *)message);
    return posted;
}

// For what was let go of here and is freed where it is not seen.
void g_free(gpointer memory) {
    REAL(g_free);
    __tsan_acquire(memory);
    real(memory);
}

void g_slice_free1(gsize size, gpointer memory) {
    REAL(g_slice_free1);
    __tsan_acquire(memory);
    real(size, memory);
}

typedef struct {
    GFunc function;
    gpointer user_data;
} Pool;

static void run(gpointer item, gpointer user_data) {
    Pool *pool = user_data;
    __tsan_acquire(pool);
    __tsan_acquire(item);
    pool->function(item, pool->user_data);
}

// What is kept for a pool is never freed: there are few.
GThreadPool *g_thread_pool_new(GFunc function, gpointer user_data, gint most, gboolean exclusive, GError **error) {
    REAL(g_thread_pool_new);
    Pool *pool = malloc(sizeof *pool);
    pool->function = function;
    pool->user_data = user_data;
    __tsan_release(pool);
    return real(run, pool, most, exclusive, error);
}

gboolean g_thread_pool_push(GThreadPool *pool, gpointer item, GError **error) {
    REAL(g_thread_pool_push);
    __tsan_release(item);
    return real(pool, item, error);
}
